"""The order of a run: events, files, places, and work between steps that must not change the training."""

from __future__ import annotations

import json
import time

import pytest
import tiny

from trainer import check, train
from trainer import plan as plan_module
from trainer.errors import ConfigError, OutputError, RunFolderBusy, Stopped
from trainer.events import CacheProgress, DatasetScanned, Finished, SampleReady, Saved, Status, StepDone, Validated, Warned
from trainer.families import FAMILIES, find_family
from trainer.feed import Feed
from trainer.loop import Periodic
from trainer.plan import make_plan

SAVES = {"name": "tiny", "dtype": "fp32", "every_epochs": None, "every_steps": 2}
PROMPTS = {"prompts": ["a", "b"], "steps": 2, "size": 64, "every_epochs": None, "every_steps": 2, "at_start": True}


def test_events_come_in_order_with_the_right_totals(job):
    events = []
    section = {
        "method": {"rank": 4, "train_text_encoder": False},
        "save": SAVES,
        "sample": PROMPTS,
        "validate": {"split": 0.2, "every_epochs": None},
    }
    result = train(job(**section), listen=events.append)
    flow = [event for event in events if not isinstance(event, (Status, Warned))]
    names = {
        CacheProgress: "cache",
        DatasetScanned: "scanned",
        Finished: "end",
        SampleReady: "sample",
        StepDone: "step",
        Validated: "validate",
    }
    short = [event.kind if isinstance(event, (Saved, CacheProgress)) else names[type(event)] for event in flow]
    saved = ["state", "lora"]
    drawn = ["sample"] * 2
    expected = ["scanned", *["latents"] * 5, *["text"] * 5, "validate", *drawn]
    expected += ["step", "step", *saved, *drawn, "step", "step", *saved, "validate", *drawn, "end"]
    assert short == expected
    assert [event.step for event in flow if isinstance(event, StepDone)] == [1, 2, 3, 4]
    assert {event.total for event in flow if isinstance(event, StepDone)} == {4}
    assert [event.epoch for event in flow if isinstance(event, StepDone)] == [1, 1, 2, 2]
    for kind in ("latents", "text"):
        assert [(event.done, event.total) for event in flow if isinstance(event, CacheProgress) and event.kind == kind] == [
            (n, 5) for n in range(1, 6)
        ]
    assert flow[-1] == Finished("done", result.artefact, 4)
    assert flow[0].images == 5
    samples = [event for event in flow if isinstance(event, SampleReady)]
    assert [(event.step, event.prompt) for event in samples] == [(step, prompt) for step in (0, 2, 4) for prompt in "ab"]
    assert all(event.path.is_file() and event.image.size == (64, 64) for event in samples)
    assert result.samples == tuple(event.path for event in samples)


def test_result_and_files(job, tmp_path):
    result = train(job(save={**SAVES, "every_steps": 1}))
    assert result.status == "done" and result.steps == len(result.losses) == 4
    assert [path.name for path in result.files] == [*(f"tiny-step{step:08d}.safetensors" for step in (1, 2, 3)), "tiny.safetensors"]
    assert result.artefact == tmp_path / "out" / "tiny.safetensors" and result.run_dir == tmp_path / "out" / "tiny"
    assert result.final_loss == pytest.approx(sum(result.losses) / 4)
    assert {path.name for path in result.run_dir.iterdir()} >= {"config.yaml", "log.jsonl", "state.pt", "loss.png"}
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix == ".tmp"]
    assert json.loads(json.dumps(result.as_dict()))["lora"] == str(result.artefact)


def test_numbered_files_are_named_by_epoch(job):
    result = train(job(save={"name": "tiny", "every_epochs": 1}, train={"epochs": 2, "steps": None, "precision": "fp32", "device": "cpu"}))
    assert [path.name for path in result.files] == ["tiny-000001.safetensors", "tiny.safetensors"]


def test_validating_and_drawing_do_not_change_the_training(job):
    """Held-out pictures are the same in all three runs; only how often work is done between steps differs."""
    runs = {}
    for name, validate, sample in (
        ("plain", {"split": 0.2, "every_epochs": None}, {}),
        ("validating", {"split": 0.2, "every_epochs": None, "every_steps": 1}, {}),
        ("drawing", {"split": 0.2, "every_epochs": None}, {**PROMPTS, "sampler": "euler_ancestral", "every_steps": 1}),
    ):
        events = []
        result = train(job(save={"name": name, "dtype": "fp32"}, validate=validate, sample=sample), listen=events.append)
        runs[name] = (result.losses, tiny.tensors_of(result.artefact), events)
    for name in ("validating", "drawing"):
        assert runs[name][0] == runs["plain"][0]
        assert tiny.differing(runs[name][1], runs["plain"][1]) == []
    validated = {name: {event.step: event.loss for event in run[2] if isinstance(event, Validated)} for name, run in runs.items()}
    assert list(validated["validating"]) == [0, 1, 2, 3, 4] and list(validated["plain"]) == [0, 4]
    assert validated["plain"] == {step: validated["validating"][step] for step in (0, 4)}
    assert len([event for event in runs["drawing"][2] if isinstance(event, SampleReady)]) == 10


def test_a_sample_that_fails_is_a_warning(job, monkeypatch):
    from trainer import periodic

    def fails(*_arguments):
        raise RuntimeError("no memory for this picture")

    monkeypatch.setattr(periodic, "draw", fails)
    events = []
    result = train(job(sample=PROMPTS), listen=events.append)
    assert result.status == "done" and result.artefact.is_file()
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert sum("the sample 'a' could not be drawn: no memory for this picture" in text for text in warnings) == 3


def test_an_error_of_the_listener_ends_the_run_and_frees_the_folder(job):
    def listen(event):
        if isinstance(event, StepDone):
            raise KeyError("listener")

    with pytest.raises(KeyError, match="listener"):
        train(job(), listen=listen)
    assert train(job(), resume=True).status == "done"  # from the step that was saved after the error


def test_a_second_run_in_the_same_folder_is_refused(job):
    seen = []

    def listen(event):
        if isinstance(event, StepDone) and not seen:
            with pytest.raises(RunFolderBusy, match=r"another training is writing to .*tiny"):
                train(job())
            seen.append(event)

    assert train(job(), listen=listen).status == "done"
    assert seen


def test_an_existing_name_is_refused_and_nothing_is_changed(job, tmp_path):
    train(job())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"save\.name: .*tiny\.safetensors exists already; choose another name"):
        train(job(train={"steps": 2, "precision": "fp32", "device": "cpu"}))
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()} == before


def test_numbered_files_of_a_name_count_too(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tiny-000003.safetensors").write_bytes(b"a user's file")
    with pytest.raises(ConfigError, match=r"tiny-000003\.safetensors exists already"):
        train(job())


def test_the_state_of_a_run_that_saved_no_file_yet_is_not_replaced(job, tmp_path):
    """It is what saving by time is for: a crash before the first file."""
    events = []
    train(job(), listen=events.append, stop=lambda: any(isinstance(event, StepDone) for event in events))
    for file in (tmp_path / "out").glob("*.safetensors"):
        file.unlink()
    (state,) = tmp_path.rglob("state.pt")
    before = state.read_bytes()
    for config in (job(), job(save={"name": "other", "run_dir": str(state.parent)})):
        assert any("is where an earlier run stands; continue it with --resume" in text for text in check(config).warnings)
        with pytest.raises(ConfigError, match=r"save\.run_dir: .*state\.pt is where an earlier run stands; continue it with --resume"):
            train(config)
    assert state.read_bytes() == before
    assert train(job(), resume=True).status == "done"


def test_the_time_of_a_step_counts_the_wait_for_its_pictures(job, monkeypatch):
    plain, wait = Feed.steps_from, 0.3

    def slow(feed, start):
        for batches in plain(feed, start):
            time.sleep(wait)
            yield batches

    monkeypatch.setattr(Feed, "steps_from", slow)
    events = []
    train(job(), listen=events.append)
    assert all(event.seconds >= wait for event in events if isinstance(event, StepDone))


def test_an_output_folder_that_cannot_be_written_is_found_before_anything_is_loaded(job, tmp_path):
    (tmp_path / "out").write_text("a file")
    events = []
    with pytest.raises(OutputError, match=r"save\.dir: .*out"):
        train(job(), listen=events.append)
    assert events == []


def test_all_wrong_settings_are_reported_at_once(job):
    config = job(
        optimizer={"kind": "adam"},
        schedule={"kind": "cosin"},
        method={"adapter": "lorra"},
        sample={"prompts": ["a"], "sampler": "eulr", "scheduler": "x"},
        dataset={"folders": [{"path": "nowhere"}]},
    )
    with pytest.raises(ConfigError) as caught:
        train(config)
    fields = [problem.split(":")[0] for problem in caught.value.problems]
    assert set(fields) >= {
        "optimizer.kind",
        "schedule.kind",
        "method.adapter",
        "sample.sampler",
        "sample.scheduler",
        "dataset.folders.0.path",
    }
    assert "did you mean 'adamw'?" in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "vae", "text"),
    [
        ({"method": {"train_text_encoder": False}}, False, False),
        ({}, False, True),
        ({"method": {"train_text_encoder": False}, "sample": {"prompts": ["a"], "steps": 1, "size": 64}}, True, False),
    ],
    ids=["both cached", "text trained", "samples"],
)
def test_encoders_leave_memory_when_their_work_is_done(job, monkeypatch, sections, vae, text):
    """Before the first step: the VAE with cached latents unless samples need it, text encoders with cached texts."""
    from trainer import run

    seen, make = [], run._job

    def watched(plan, family, model, *rest):
        seen.append((model.vae is not None, bool(model.text_encoders)))
        return make(plan, family, model, *rest)

    monkeypatch.setattr(run, "_job", watched)
    train(job(**sections, train={"steps": 1, "precision": "fp32", "device": "cpu"}))
    assert seen == [(vae, text)]


def test_training_nothing_is_refused(job):
    with pytest.raises(ConfigError, match="train_unet and train_text_encoder are both off"):
        train(job(method={"train_unet": False, "train_text_encoder": False}))


def test_pictures_that_are_passed_over_are_warned_of(job, tmp_path):
    folder = tiny.write_pictures(tmp_path / "some", count=2)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "00.txt").write_text("word " * 100)
    events = []
    train(job(dataset={"folders": [{"path": str(folder)}], "resolution": 64, "captions": {"keep_tokens": 2}}), listen=events.append)
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert [text for text in warnings if "bad.png" in text]
    assert [text for text in warnings if "00.png" in text and "has 400 tokens, those after 75 are not read" in text]
    assert len([text for text in warnings if "keep_tokens" in text]) == 1


@pytest.mark.parametrize("epochs", [None, 1, 2])
@pytest.mark.parametrize("steps", [None, 1, 3, 4])
def test_remaining_work_is_what_is_still_due(job, epochs, steps):
    plan = make_plan(job(train={"steps": 25, "precision": "fp32", "device": "cpu"}))
    assert plan.steps_per_epoch == 3
    task = Periodic("x", lambda step: None, epochs, steps)
    due = [step for step in range(1, plan.total_steps + 1) if task.due(step, plan)]
    expected = {step for step in range(1, 26) if step == 25 or (epochs and step % (3 * epochs) == 0) or (steps and step % steps == 0)}
    assert set(due) == expected
    for step in range(plan.total_steps + 1):
        assert task.remaining(step, plan) == sum(later > step for later in due)
    assert not task.due(0, plan)


def test_held_out_pictures_that_cannot_be_used_are_named(job, tmp_path):
    held_out = tiny.write_pictures(tmp_path / "held out", 3, sizes=[(64, 96)] * 3)
    (held_out / "01.png").write_bytes((held_out / "01.png").read_bytes()[:60])
    config = job(validate={"folder": str(held_out)})
    plan = make_plan(config)
    assert [record.path.name for record in plan.held_out] == ["00.png", "02.png"]
    assert [item.path.name for item in plan.scan.skipped] == ["01.png"]
    assert [item["path"] for item in check(config).as_dict()["skipped"]] == [str(held_out / "01.png")]


def test_a_stop_while_held_out_pictures_are_read_is_a_stop(job, tmp_path, monkeypatch):
    config = job(validate={"folder": str(tiny.write_pictures(tmp_path / "more", 2, sizes=[(96, 64)] * 2))})
    plain, stopping = plan_module.scan, []

    def scan(*arguments):
        stopping.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(plan_module, "scan", scan)
    with pytest.raises(Stopped):
        make_plan(config, stop=lambda: len(stopping) == 2)


def test_a_tilde_stands_for_the_users_folder(job, base, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "models").symlink_to(base.parent)
    config = job(base={"checkpoint": f"~/models/{base.name}"})
    assert find_family(config.base.checkpoint, "auto", FAMILIES).spec.name == "sd15"
    assert train(config).status == "done"
