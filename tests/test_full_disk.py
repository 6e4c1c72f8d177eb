"""A disk without room and a folder that cannot be written: what was saved stays whole, and the run goes on where it can."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

from trainer import train
from trainer.config import to_yaml
from trainer.errors import OutputError
from trainer.events import Saved, StepDone, Warned
from trainer.files import free_bytes, require_space

EVERY_STEP = {"name": "full", "dtype": "fp32", "every_epochs": None, "every_steps": 1}


def fill(folder: Path) -> None:
    """Take all of the disk's room."""
    with contextlib.suppress(OSError), (folder / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 8 MiB, for the outputs of a tiny run."""
    if os.name != "posix":
        pytest.skip("mounts a small disk")
    with mounted(tmp_path / "disk", "size=8m") as folder:
        yield folder


def on_disk(job, disk: Path, tmp_path: Path, **sections):
    cache = {**job().dataset.model_dump(mode="json"), "cache": {"dir": str(tmp_path / "cache")}}
    return job(dataset=cache, save={**EVERY_STEP, "dir": str(disk)}, **sections)


def all_readable(folder: Path) -> list[str]:
    """Names of LoRAs and states; each is opened."""
    for path in folder.rglob("*.safetensors"):
        tiny.tensors_of(path)
    for path in folder.rglob("state.pt"):
        torch.load(path, weights_only=True)
    assert list(folder.rglob("*.tmp")) == []
    return sorted(path.name for path in folder.rglob("*.safetensors"))


def test_a_disk_that_is_full_until_the_end_keeps_the_last_good_files(job, disk, tmp_path):
    whole = train(job(save={"name": "whole", "dtype": "fp32"}))
    events = []

    def listen(event):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 3:
            fill(disk)

    with pytest.raises(OutputError, match="the disk is full"):
        train(on_disk(job, disk, tmp_path), listen=listen)
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3, 4], "it goes on, for there may be room later"
    assert any("The training goes on" in event.text for event in events if isinstance(event, Warned))
    assert all_readable(disk) == ["full-step00000001.safetensors", "full-step00000002.safetensors"]
    assert torch.load(disk / "full" / "state.pt", weights_only=True)["step"] == 2

    (disk / "filler").unlink()
    result = train(on_disk(job, disk, tmp_path), resume=True)
    assert result.losses == whole.losses
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(result.artefact)) == []


def test_a_disk_that_gets_room_again_ends_well(job, disk, tmp_path):
    def listen(event):
        if isinstance(event, StepDone) and event.step == 2:
            fill(disk)
        if isinstance(event, StepDone) and event.step == 4:
            (disk / "filler").unlink()

    result = train(on_disk(job, disk, tmp_path), listen=listen)
    assert result.status == "done" and result.steps == 4 and len(result.losses) == 4, "the log is whole too"
    assert all_readable(disk) == ["full-step00000001.safetensors", "full.safetensors"]


def test_a_disk_without_room_is_refused_before_the_first_step(job, disk, tmp_path):
    events = []
    fill(disk)
    with (disk / "filler").open("rb+") as file:
        file.truncate((disk / "filler").stat().st_size - 64 * 1024)  # room for the log, not for a state
    with pytest.raises(OutputError, match=r"save\.dir: LoRA and state could not be written: the disk is full \([\d,]+ bytes needed"):
        train(on_disk(job, disk, tmp_path), listen=events.append)
    assert not [event for event in events if isinstance(event, StepDone)]


def test_a_full_cache_disk_is_refused_before_encoding(job, tmp_path, monkeypatch):
    from trainer import files

    monkeypatch.setattr(files, "free_bytes", lambda folder: 1000 if folder.name.endswith("_cache") else 10**12)
    with pytest.raises(OutputError, match=r"dataset\.cache\.dir: latents of 5 pictures .* 1,000 free"):
        train(job())


def test_a_disk_that_becomes_read_only_loses_nothing(job, disk, tmp_path):
    def listen(event):
        if isinstance(event, StepDone) and event.step == 3:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    # The run's log is open for writing, which forbids the change; a copy of the run is made elsewhere instead.
    with pytest.raises((OutputError, subprocess.CalledProcessError)):
        train(on_disk(job, disk, tmp_path), listen=listen)
    assert torch.load(disk / "full" / "state.pt", weights_only=True)["step"] >= 2
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=r"save\.(run_)?dir: .* no permission"):
        train(on_disk(job, disk, tmp_path), resume=True)
    assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before


def test_a_save_that_fails_half_way_keeps_the_one_before(job, tmp_path, monkeypatch):
    """The same without a real disk: from the second save on, every write of a state ends half-way."""
    from trainer import checkpoint

    written, write = [], checkpoint.torch.save

    def fails(value, file):
        written.append(1)
        if len(written) > 1:
            file.write(b"half a state")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(value, file)

    monkeypatch.setattr(checkpoint.torch, "save", fails)
    events = []
    with pytest.raises(OutputError, match="the disk is full"):
        train(job(save=EVERY_STEP), listen=events.append)
    assert all_readable(tmp_path / "out")[-1] == "full.safetensors", "the LoRA is smaller, and there is room for it"
    assert torch.load(tmp_path / "out" / "full" / "state.pt", weights_only=True)["step"] == 1


def test_an_error_in_a_step_saves_what_is_done(job, tmp_path, monkeypatch):
    from trainer import loop

    count, plain = [], loop.batch_loss

    def fails(*arguments):
        count.append(1)
        if len(count) == 3:
            raise RuntimeError("cudnn is unhappy")
        return plain(*arguments)

    monkeypatch.setattr(loop, "batch_loss", fails)
    with pytest.raises(RuntimeError, match="unhappy"):
        train(job())
    monkeypatch.undo()
    assert torch.load(tmp_path / "out" / "tiny" / "state.pt", weights_only=True)["step"] == 2
    assert train(job(), resume=True).losses == train(job(save={"name": "whole", "dtype": "fp32"})).losses


def test_an_error_in_the_middle_of_an_update_saves_nothing_of_it(job, tmp_path, monkeypatch):
    from trainer.precision import LossScaler

    plain = LossScaler.step

    def fails(self, optimizer, max_norm):
        plain(self, optimizer, max_norm)
        raise RuntimeError("half an update")

    monkeypatch.setattr(LossScaler, "step", fails)
    with pytest.raises(RuntimeError, match="half an update"):
        train(job())
    assert list((tmp_path / "out").rglob("state.pt")) == []


def test_room_is_asked_for_before_writing(tmp_path):
    require_space(tmp_path / "not yet there", 1, "x")
    with pytest.raises(OutputError, match="x could not be written: the disk is full"):
        require_space(tmp_path, free_bytes(tmp_path) * 2, "x")


def test_the_state_is_saved_by_time(job, tmp_path):
    """Every step is later than so short a time; the state is saved and no file, but for the last."""
    plan = {"name": "timed", "dtype": "fp32", "every_epochs": None, "every_minutes": 1e-9}
    events = []
    train(job(save=plan), listen=events.append)
    saved = [(event.step, event.kind) for event in events if isinstance(event, Saved)]
    assert saved == [(1, "state"), (2, "state"), (3, "state"), (4, "state"), (4, "lora")]
    events.clear()
    train(job(save={**plan, "name": "untimed", "every_minutes": None}), listen=events.append)
    assert [(event.step, event.kind) for event in events if isinstance(event, Saved)] == [(4, "state"), (4, "lora")]
    assert "every_minutes" in to_yaml(job())
