"""kill -9 at any moment: no damaged file is ever to be seen under a final name, and the resumed run ends with the very same numbers.

The short form kills at one moment of each kind; the long form, `pytest -m slow tests/test_kill.py`, at twenty.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from trainer import train
from trainer.config import from_dict, to_yaml
from trainer.config.io import load
from trainer.data import cache as caches
from trainer.events import StepDone

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
STEPS = 6
KINDS = ("step", "update", "state", "artefact", "renamed", "cache", "sample", "log")


def killed_run(file: Path, kind: str, number: int) -> None:
    """Train, and die without a word at the `number`-th moment (from 1) of a kind. Runs in a process of its own."""
    left = [number]

    def reached() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _trap(kind, reached)
    train(load(file), resume=True)


def _trap(kind: str, reached: Callable[[], None]) -> None:
    """Call `reached` in the middle of every piece of work of a kind."""
    from trainer import checkpoint, files, log, loop, precision, sample

    def before(owner, name: str, when=lambda *_: True) -> None:
        plain = getattr(owner, name)

        def trapped(*arguments, **more):
            if when(*arguments):
                reached()
            return plain(*arguments, **more)

        setattr(owner, name, trapped)

    def half_written(owner, name: str, when=lambda *_: True) -> None:
        """The file that is being written has half of its bytes."""
        plain = getattr(owner, name)

        def trapped(path: Path, data: bytes, **more):
            if when(path):
                with files.replacing(path) as temporary:
                    temporary.write_bytes(data[: len(data) // 2])
                    reached()
                    temporary.write_bytes(data)
                return None
            return plain(path, data, **more)

        setattr(owner, name, trapped)

    def save(value, file):
        file.write(b"half a state")
        file.flush()
        reached()
        file.seek(0)
        file.truncate()
        plain_save(value, file)

    match kind:
        case "step":
            before(loop, "batch_loss")
        case "update":
            before(precision.LossScaler, "step")
        case "state":
            plain_save, checkpoint.torch.save = checkpoint.torch.save, save
        case "artefact":
            half_written(checkpoint, "write_bytes")
        case "renamed":
            before(checkpoint, "with_hashes")  # the state has its name, the artefact is not begun
        case "cache":
            half_written(caches, "write_bytes")
        case "sample":
            before(sample, "to_image")
        case "log":
            before(log.RunLog, "__call__", lambda _log, event: isinstance(event, StepDone))


def check_files(folder: Path) -> None:
    """Every file under a final name is whole."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.name.startswith(".") or path.suffix == ".lock":
            continue
        if path.suffix == ".safetensors":
            tiny.tensors_of(path)
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".yaml":
            load(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        else:
            assert path.name == "log.jsonl", path
            lines = path.read_text(encoding="utf-8").split("\n")
            for line in lines[:-1]:  # only the last one may be cut short
                json.loads(line)


def prepared(base: Path, pictures: Path, folder: Path):
    """A job that saves, samples and accumulates, with its outputs and a cache of its own in `folder`."""
    plain = tiny.job(
        base,
        pictures,
        folder,
        train={"steps": STEPS, "gradient_accumulation": 2},
        sample={"prompts": ["a", "b"], "steps": 2, "size": 64, "every_epochs": None, "every_steps": 2},
        save={"name": "killed", "every_epochs": None, "every_steps": 2, "dir": str(folder), "every_minutes": 1e-9},
        schedule={"kind": "cosine", "warmup": 2},
        method={"train_text_encoder": False},
    ).as_dict()
    plain["dataset"]["captions"]["shuffle"] = True
    plain["dataset"]["cache"]["dir"] = str(folder / "cache")
    folder.mkdir()
    config = from_dict(plain)
    (folder / "job.yaml").write_text(to_yaml(config), encoding="utf-8")
    return config, folder


@pytest.fixture
def make(base, pictures, tmp_path):
    return lambda name: prepared(base, pictures, tmp_path / name)


@pytest.fixture(scope="module")
def whole(base, pictures, tmp_path_factory):
    """The result of a run that nothing interrupts, and the seconds that it takes."""
    config, _ = prepared(base, pictures, tmp_path_factory.mktemp("whole") / "run")
    start = time.monotonic()
    result = train(config)
    return result, time.monotonic() - start


@pytest.fixture(scope="module")
def spawn():
    """Starts a function in a process of its own; the processes are copies of one that has loaded everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_kill", "trainer.run", "diffusers.models.unets.unet_2d_condition", "transformers"])

    def start(function, *arguments):
        process = context.Process(target=function, args=arguments, daemon=True)
        process.start()
        return process

    return start


def check_resumed(config, folder: Path, whole, moment: str) -> None:
    check_files(folder)
    result = train(config, resume=True)
    assert result.status == "done", moment
    assert result.losses == whole.losses, moment
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(result.artefact)) == [], moment
    names = ["killed-step00000002.safetensors", "killed-step00000004.safetensors", "killed.safetensors"]
    assert [path.name for path in result.files] == names, moment
    assert len(result.samples) == 6, moment
    left = [path for path in folder.rglob(".*.tmp") if "cache" not in path.parts]
    assert left == [], moment


def test_killed_at_a_moment_of_each_kind(make, spawn, whole):
    for kind in KINDS:
        config, folder = make(kind)
        number = 2 if kind == "cache" else random.randint(1, 3)
        child = spawn(killed_run, folder / "job.yaml", kind, number)
        child.join(240)
        assert child.exitcode == -signal.SIGKILL, f"{kind} {number}"
        check_resumed(config, folder, whole[0], f"killed at {kind} {number}")


def command(file: Path) -> None:
    """`python -m trainer train`, without its imports."""
    from trainer.cli import main

    raise SystemExit(main(["train", str(file)]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_saves_the_work(make, spawn, number):
    config, folder = make("asked")
    endless = config.model_copy(update={"train": config.train.model_copy(update={"steps": 100_000})})
    (folder / "job.yaml").write_text(to_yaml(endless), encoding="utf-8")
    child = spawn(command, folder / "job.yaml")
    log = folder / "killed" / "log.jsonl"
    deadline = time.monotonic() + 240
    while not (log.is_file() and '"StepDone"' in log.read_text()) and child.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == 130
    steps = log.read_text().count('"StepDone"')
    assert torch.load(folder / "killed" / "state.pt", weights_only=True)["step"] == steps
    assert (folder / f"killed-step{steps:08d}.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_twenty_random_moments(make, spawn, whole, moment):
    """Half of them inside a piece of work of each kind in turn, half at a random time; each run is killed again while it resumes."""
    result, seconds = whole
    config, folder = make("parts")
    said = []
    for _ in range(2):
        if moment % 2:
            kind, number = KINDS[moment // 2 % len(KINDS)], random.randint(1, 4)
            child = spawn(killed_run, folder / "job.yaml", kind, number)
            child.join(240)
            said.append(f"{kind} {number}")
        else:
            wait = random.uniform(0.0, seconds)
            child = spawn(killed_run, folder / "job.yaml", "never", 1)
            time.sleep(wait)
            child.kill()
            child.join(30)
            said.append(f"after {wait:.3f} of {seconds:.3f} s")
        assert child.exitcode in (-signal.SIGKILL, 0), said  # 0: it was done by then
        check_files(folder)
    print(f"killed {' and '.join(said)}")
    check_resumed(config, folder, result, f"killed {' and '.join(said)}")
