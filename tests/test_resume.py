"""A run that was stopped or killed, and resumed, ends with the very numbers of one that was not."""

from __future__ import annotations

import itertools
import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

from trainer import train
from trainer.config import to_yaml
from trainer.errors import ConfigError, ResumeMismatch
from trainer.evaluate.lora_files import run_files
from trainer.events import Saved, Status, StepDone, Warned

ROOT = Path(__file__).parents[1]
STEPS = 7  # three epochs of two steps, and one step of a fourth
VARIED = {
    "train": {"steps": STEPS, "precision": "fp32", "device": "cpu", "gradient_accumulation": 2},
    "schedule": {"kind": "cosine", "warmup": 2},
}


class StopAfter:
    """A stop check that becomes true once so many steps are done; also the listener that counts them."""

    def __init__(self, steps: int):
        self.steps, self.events = steps, []

    def listen(self, event) -> None:
        self.events.append(event)

    def __call__(self) -> bool:
        return sum(isinstance(event, StepDone) for event in self.events) >= self.steps


def varied(job, name: str, **sections):
    """Several epochs, unequal buckets, accumulation, shuffled captions, a text encoder in training."""
    plain = job().dataset.model_dump(mode="json")
    dataset = {**plain, "captions": {"shuffle": True, "keep_tokens": 1}}
    return job(**{**VARIED, "dataset": dataset, "save": {"name": name, "dtype": "fp32"}, **sections})


def dtypes_in(value):
    """The dtypes of all tensors in nested dicts."""
    if torch.is_tensor(value):
        yield value.dtype
    elif isinstance(value, dict):
        for item in value.values():
            yield from dtypes_in(item)


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "lion", "sgd"])
def test_stopped_and_resumed_equals_uninterrupted(job, kind):
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    # Only tensors of 4,096 numbers and more get 8-bit states: rank 64 on 64-wide layers.
    method = {"rank": 64, "alpha": 64} if kind == "adamw8bit" else {"rank": 4}
    args = {"momentum": 0.9} if kind == "sgd" else {}
    section = {"optimizer": {"kind": kind, "lr": 1e-3, "args": args}, "method": method}
    whole = train(varied(job, "whole", **section))
    assert whole.status == "done" and whole.steps == STEPS

    stop = StopAfter(3)
    first = train(varied(job, "parts", **section), listen=stop.listen, stop=stop)
    assert (first.status, first.steps) == ("stopped", 3)
    assert first.artefact.name == "parts-step00000003.safetensors"
    second = train(varied(job, "parts", **section), resume=True)
    assert (second.status, second.steps) == ("done", STEPS)
    assert second.losses == whole.losses
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(second.artefact)) == []
    if kind == "adamw8bit":
        state = torch.load(second.run_dir / "state.pt", weights_only=True)["optimizer"]["state"]
        assert torch.uint8 in set(dtypes_in(state))


RESTRAINED = {"rank": 8, "dropout": 0.1, "rank_dropout": 0.2, "module_dropout": 0.1, "max_norm": 0.05, "stop_text_encoder": 4}
OPTIONS = {
    "everything restrained": {"method": RESTRAINED, "optimizer": {"lr": 1e-3, "lora_plus": 4.0}},
    "schedule-free": {"optimizer": {"kind": "adamw_schedulefree", "lr": 1e-3}, "method": {"rank": 4, "stop_text_encoder": 2}},
    "prodigy": {"optimizer": {"kind": "prodigy", "lr": 1.0, "args": {"d0": 1e-4}}, "method": {"rank": 4}},
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_every_option_goes_on_bit_for_bit(job, name):
    """Both sides of the step from which the text encoder rests; the average, the drops and the limits too."""
    ema = {} if name == "schedule-free" else {"ema": 0.9}
    section = {**OPTIONS[name], "train": {**VARIED["train"], **ema}}
    whole = train(varied(job, "whole", **section))
    stop = StopAfter(3)
    train(varied(job, "parts", **section), listen=stop.listen, stop=stop)
    second = train(varied(job, "parts", **section), resume=True)
    assert (second.status, second.losses) == ("done", whole.losses)
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(second.artefact)) == []
    states = [torch.load(result.run_dir / "state.pt", weights_only=True) for result in (whole, second)]
    assert tiny.differing(states[0]["tensors"], states[1]["tensors"]) == []


def test_samples_that_a_killed_session_did_not_draw_are_drawn(job, monkeypatch):
    from trainer import periodic

    prompts = {"prompts": ["a", "b"], "steps": 1, "size": 64, "every_epochs": None, "every_steps": 2}
    draw, count = periodic.draw, itertools.count(1)

    class Killed(BaseException):
        pass

    def dies(*arguments):
        if next(count) == 2:
            raise Killed
        return draw(*arguments)

    monkeypatch.setattr(periodic, "draw", dies)
    save = {"name": "tiny", "dtype": "fp32", "every_epochs": None, "every_steps": 2}
    with pytest.raises(Killed):
        train(job(sample=prompts, save=save))
    monkeypatch.setattr(periodic, "draw", draw)
    result = train(job(sample=prompts, save=save), resume=True)
    assert [path.name for path in result.samples] == [f"step{step:08d}_0{number}.png" for step in (2, 4) for number in (0, 1)]


def test_stopping_between_accumulated_batches_leaves_a_state_that_goes_on(job):
    """stop() is polled before each step and after each of its micro-batches; here it is true inside the third step."""
    whole = train(varied(job, "whole"))
    training, polls, steps = [], itertools.count(1), []

    def listen(event):
        training.extend([event] if isinstance(event, Status) and event.text.startswith("training") else [])
        steps.extend([event] if isinstance(event, StepDone) else [])

    def stop() -> bool:
        # Steps of an epoch have 2 and 1 micro-batches, so 3 and 2 polls: the seventh is after the first half of step 3.
        return bool(training) and next(polls) >= 7

    first = train(varied(job, "parts"), listen=listen, stop=stop)
    assert (first.status, first.steps, len(steps)) == ("stopped", 2, 2)
    state = torch.load(first.run_dir / "state.pt", weights_only=True)
    assert state["step"] == 2
    second = train(varied(job, "parts"), resume=True)
    assert second.losses == whole.losses
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(second.artefact)) == []


@pytest.mark.parametrize("when", ["before anything", "scanning", "encoding", "before the first step"])
def test_a_stop_before_the_first_step_ends_the_run_in_order(job, when, tmp_path):
    events = []
    begins = {"before anything": "", "scanning": "found", "encoding": "encoding", "before the first step": "training"}[when]

    def stop() -> bool:
        return not begins or any(isinstance(event, Status) and event.text.startswith(begins) for event in events)

    result = train(job(), listen=events.append, stop=stop)
    assert (result.status, result.steps, result.artefact, result.files) == ("stopped", 0, None, ())
    assert list((tmp_path / "out").glob("*.safetensors")) == []
    assert train(job()).status == "done"


CHILD = """
import sys, time
from trainer import train
from trainer.config import load
from trainer.events import StepDone
train(load(sys.argv[1]), listen=lambda event: time.sleep(0.1) if isinstance(event, StepDone) else None)
"""


def logged_steps(log: Path) -> int:
    return log.read_text().count('"StepDone"') if log.is_file() else 0


def test_killed_and_resumed_equals_uninterrupted(job, tmp_path):
    save = {"name": "killed", "dtype": "fp32", "every_epochs": None, "every_steps": 2}
    (tmp_path / "job.yaml").write_text(to_yaml(varied(job, "killed", save={**save, "dir": str(tmp_path / "out")})))
    moment = random.randint(2, STEPS - 2)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "job.yaml")], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    whole = train(varied(job, "whole"))
    log = tmp_path / "out" / "killed" / "log.jsonl"
    deadline = time.monotonic() + 240
    while logged_steps(log) < moment and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(random.random() * 0.12)
    child.kill()
    _, errors = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL, f"killed after step {moment}: {errors}"

    reached = logged_steps(log)
    assert moment <= reached < STEPS
    events = []
    result = train(varied(job, "killed", save={**save, "dir": str(tmp_path / "out")}), resume=True, listen=events.append)
    again = [event.step for event in events if isinstance(event, StepDone)]
    assert again[-1] == STEPS and again[0] <= reached + 1 and again[0] % 2 == 1, f"killed after step {moment}"
    assert result.losses == whole.losses, f"killed after step {moment}"
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(result.artefact)) == []
    names = [path.name for path in result.files]
    assert names == [
        "killed-step00000002.safetensors",
        "killed-step00000004.safetensors",
        "killed-step00000006.safetensors",
        "killed.safetensors",
    ]


def test_a_state_is_older_or_newer_but_never_half(job, tmp_path, monkeypatch):
    """A run that dies while it writes the state resumes from the state before."""
    from trainer import checkpoint

    save = {"every_steps": 2, "every_epochs": None, "name": "tiny", "dtype": "fp32", "dir": str(tmp_path / "out")}
    whole = train(varied(job, "whole"))
    written = []

    class Killed(BaseException):
        pass

    def dies(value, file):
        written.append(1)
        if len(written) == 2:
            file.write(b"half a state")
            raise Killed
        return write(value, file)

    write = checkpoint.torch.save
    monkeypatch.setattr(checkpoint.torch, "save", dies)
    with pytest.raises(Killed):
        train(varied(job, "tiny", save=save))
    monkeypatch.setattr(checkpoint.torch, "save", write)
    events = []
    result = train(varied(job, "tiny", save=save), resume=True, listen=events.append)
    assert [event.step for event in events if isinstance(event, StepDone)][0] == 3
    assert result.losses == whole.losses
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(result.artefact)) == []


@pytest.fixture
def stopped(job):
    """A run of four steps that was stopped after two."""
    stop = StopAfter(2)
    train(job(), listen=stop.listen, stop=stop)


@pytest.mark.parametrize(
    ("sections", "difference"),
    [
        ({"method": {"rank": 8, "alpha": 4}}, "method.rank: was 4, now 8"),
        ({"optimizer": {"lr": 0.5}}, "optimizer.lr: was 0.01, now 0.5"),
        ({"train": {"steps": 4, "precision": "bf16", "device": "cpu"}}, "train.precision: was 'fp32', now 'bf16'"),
    ],
)
def test_another_job_does_not_resume(job, stopped, sections, difference, tmp_path):
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".lock"}
    with pytest.raises(ResumeMismatch) as caught:
        train(job(**sections), resume=True)
    assert difference in str(caught.value)
    assert {path: path.read_bytes() for path in before} == before


def test_other_pictures_are_another_job(job, stopped, pictures, tmp_path):
    changed = tiny.write_pictures(tmp_path / "changed", sizes=[(64, 64)] * 5)
    with pytest.raises(ResumeMismatch, match="dataset: was"):
        train(job(dataset={**job().dataset.model_dump(mode="json"), "folders": [{"path": str(changed)}]}), resume=True)


def test_other_weights_are_another_job(job, stopped, tmp_path):
    other = tiny.write_base(tmp_path / "other", seed=9)
    with pytest.raises(ResumeMismatch, match=r"base\.\w+: was"):
        train(job(base={"checkpoint": str(other)}), resume=True)


def test_the_same_files_elsewhere_are_the_same_job(job, stopped, base, pictures, tmp_path):
    import shutil

    moved = {"base": {"checkpoint": str(shutil.copytree(base, tmp_path / "moved_base"))}}
    folder = shutil.copytree(pictures, tmp_path / "moved_pictures")
    dataset = {**job().dataset.model_dump(mode="json"), "folders": [{"path": str(folder)}]}
    assert train(job(**moved, dataset=dataset), resume=True).steps == 4


def test_more_steps_continue_where_the_rate_does_not_depend_on_them(job):
    short = train(job())
    events = []
    longer = job(train={"steps": 6, "precision": "fp32", "device": "cpu"})
    result = train(longer, resume=True, listen=events.append)
    assert [event.step for event in events if isinstance(event, StepDone)] == [5, 6]
    whole = train(job(train={"steps": 6, "precision": "fp32", "device": "cpu"}, save={"name": "whole", "dtype": "fp32"}))
    assert result.losses == whole.losses and result.losses[:4] == short.losses
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(result.artefact)) == []


def test_the_result_of_a_finished_run_that_goes_on_is_its_newest_file(job):
    """The final file is written again, after the numbered ones that came between."""

    def lasting(epochs: int):
        return job(train={"steps": None, "epochs": epochs, "precision": "fp32", "device": "cpu"}, save={"every_epochs": 1})

    train(lasting(2))
    events = []
    result = train(lasting(4), resume=True, listen=events.append)
    assert [path.stem for path in result.files] == ["tiny-000001", "tiny-000002", "tiny-000003", "tiny"]
    assert result.artefact == result.files[-1] == events[-1].artefact
    assert run_files(result.run_dir) == list(result.files)


def test_more_steps_are_said_where_the_rate_depends_on_them(job):
    """Half a cosine of four steps, then the end of one of six."""
    short = train(job(schedule={"kind": "cosine", "warmup": 0}))
    events = []
    longer = job(schedule={"kind": "cosine", "warmup": 0}, train={"steps": 6, "precision": "fp32", "device": "cpu"})
    result = train(longer, resume=True, listen=events.append)
    (text,) = [event.text for event in events if isinstance(event, Warned) and "schedule" in event.text]
    assert text.startswith("schedule.length: was 4, now 6: from here on the learning rate follows the new length")
    assert result.losses[:4] == short.losses
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == [5, 6]
    for event, done in zip(steps, (4, 5), strict=True):
        assert event.lr["unet"] == pytest.approx(1e-2 * (1 + math.cos(math.pi * done / 6)) / 2)


def test_fewer_steps_than_are_done_are_refused(job):
    train(job())
    with pytest.raises(ResumeMismatch, match="is at step 4 already, this job ends at 3; set train.steps higher"):
        train(job(train={"steps": 3, "precision": "fp32", "device": "cpu"}), resume=True)


def test_harmless_changes_go_on_with_the_same_numbers(job, tmp_path):
    """Other samples, files, intervals, cache, and checkpointing, which computes the same twice."""
    whole = train(varied(job, "whole"))
    stop = StopAfter(3)
    train(varied(job, "parts"), listen=stop.listen, stop=stop)
    changed = {
        "save": {"name": "parts", "dtype": "bf16", "every_steps": 1, "every_minutes": None, "keep_last": 1, "comment": "x"},
        "sample": {"prompts": ["a"], "steps": 1, "size": 64, "every_epochs": None, "every_steps": 6},
        "train": {**VARIED["train"], "gradient_checkpointing": True},
    }
    config = varied(job, "parts", **changed)
    cache = config.dataset.cache.model_copy(update={"dir": str(tmp_path / "elsewhere")})
    result = train(config.model_copy(update={"dataset": config.dataset.model_copy(update={"cache": cache})}), resume=True)
    assert result.losses == whole.losses and len(result.samples) == 2


def test_resuming_a_finished_run_changes_nothing(job, tmp_path):
    first = train(job())
    before = first.artefact.read_bytes()
    events = []
    again = train(job(), resume=True, listen=events.append)
    assert (again.status, again.steps, again.losses, again.files) == ("done", 4, first.losses, first.files)
    assert not [event for event in events if isinstance(event, (StepDone, Saved))]
    assert first.artefact.read_bytes() == before


def test_a_deleted_file_of_a_finished_run_is_written_again_from_its_state(job):
    first = train(job(save={"name": "tiny", "dtype": "fp32", "every_epochs": None, "every_steps": 2}))
    tensors = tiny.tensors_of(first.artefact)
    first.artefact.unlink()
    events = []
    again = train(job(save={"name": "tiny", "dtype": "fp32", "every_epochs": None, "every_steps": 2}), resume=True, listen=events.append)
    assert not [event for event in events if isinstance(event, StepDone)]
    assert (again.artefact, again.files) == (first.artefact, first.files)
    assert tiny.differing(tiny.tensors_of(again.artefact), tensors) == []


def test_resuming_where_there_is_nothing_starts_with_a_warning(job):
    events = []
    result = train(job(), resume=True, listen=events.append)
    assert result.status == "done"
    assert [event for event in events if isinstance(event, Warned) and "holds no saved state to resume" in event.text]


def test_resuming_without_a_state_does_not_replace_files_of_that_name(job, tmp_path):
    """The files may be of another job whose state was removed."""
    first = train(job())
    (first.run_dir / "state.pt").unlink()
    before = first.artefact.read_bytes()
    with pytest.raises(ConfigError, match=r"tiny\.safetensors"):
        train(job(method={"rank": 2}), resume=True)
    assert first.artefact.read_bytes() == before


def test_the_log_of_a_resumed_run_tells_one_story(job, tmp_path):
    stop = StopAfter(3)
    train(job(save={"name": "tiny", "dtype": "fp32", "every_steps": 2, "every_epochs": None}), listen=stop.listen, stop=stop)
    log = tmp_path / "out" / "tiny" / "log.jsonl"
    with log.open("a") as file:
        file.write('{"event": "StepDone", "step": 4, "loss": 9.0, "lr": {}}\n{"event": "StepDo')  # a killed session went on
    train(job(save={"name": "tiny", "dtype": "fp32", "every_steps": 2, "every_epochs": None}), resume=True)
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in steps if line["event"] == "StepDone"] == [1, 2, 3, 4]
    assert all(line["loss"] < 9 for line in steps if line["event"] == "StepDone")
    assert log.stat().st_size > 0
