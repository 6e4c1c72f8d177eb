from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from trainer import checkpoint
from trainer.checkpoint import (
    STATE_FILE,
    State,
    artefact_path,
    existing_artefacts,
    fingerprint,
    load_state,
    outdated,
    save_artefact,
    save_state,
)
from trainer.config import from_dict
from trainer.errors import ModelFileError, OutputError, ResumeMismatch

STATE = State(7, {"a.up": torch.randn(3, 2)}, {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}, {})


def test_files_are_named_as_kohya_names_them(job, tmp_path):
    config = job(save={"name": "猫 v1.2"})
    folder = tmp_path / "out"
    assert artefact_path(config) == folder / "猫 v1.2.safetensors"
    assert artefact_path(config, epoch=3) == folder / "猫 v1.2-000003.safetensors"
    assert artefact_path(config, step=250) == folder / "猫 v1.2-step00000250.safetensors"


def test_only_numbered_files_of_this_name_and_folder_are_given_up(job, tmp_path):
    """A run that goes on in another folder, or under another name, has earlier files in its log."""
    config = job(save={"name": "b", "keep_last": 1})
    other = [tmp_path / "copied" / "b-000001.safetensors", tmp_path / "out" / "a.safetensors", tmp_path / "out" / "a-000001.safetensors"]
    own = [artefact_path(config, epoch=epoch) for epoch in (1, 2, 3)]
    assert outdated(config, [*other, *own, artefact_path(config)]) == own[:-1]


def test_files_of_this_name_are_found_and_no_others(job, tmp_path):
    config = job(save={"name": "a[1]"})
    assert existing_artefacts(config) == []
    folder = tmp_path / "out"
    folder.mkdir()
    own = ["a[1]-000001.safetensors", "a[1]-step00000004.safetensors", "a[1].safetensors"]
    others = ["a1.safetensors", "a1-000001.safetensors", "a[1]b.safetensors", "a[1]-0000001.safetensors", "a[1]-x.safetensors", "a[1].txt"]
    others += ["a[1]-stepmother.safetensors", "a[1]-000001.safetensors.bak"]
    for name in own + others:
        (folder / name).write_bytes(b"")
    assert [path.name for path in existing_artefacts(config)] == own


def test_a_saved_file_is_read_back_and_compared(tmp_path, monkeypatch):
    tensors = {"a": torch.arange(4.0), "b": torch.ones(2, dtype=torch.float16)}
    path = tmp_path / "a.safetensors"
    save_artefact(path, tensors, {"ss_x": "1"})

    write = checkpoint.write_bytes
    monkeypatch.setattr(checkpoint, "write_bytes", lambda path, data: write(path, data[:-1] + bytes([data[-1] ^ 1])))
    with pytest.raises(ModelFileError, match="was not written correctly"):
        save_artefact(path, tensors, {})
    monkeypatch.setattr(checkpoint, "write_bytes", lambda path, data: write(path, checkpoint.with_hashes({"a": tensors["a"]}, {})))
    with pytest.raises(ModelFileError, match="1 tensors differ"):
        save_artefact(path, tensors, {})


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_artefact(path, {"a": torch.zeros(3)}, {})
    before = path.read_bytes()

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        save_artefact(path, {"a": torch.ones(3)}, {})
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"] and path.read_bytes() == before
    with pytest.raises(OutputError, match="the disk is full"):
        save_state(tmp_path, STATE, {})
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"]


def test_state_loads_as_it_was_saved(tmp_path):
    mark = {"train.seed": 1, "nested": [1, 2], "none": None}
    assert load_state(tmp_path, mark) is None
    assert save_state(tmp_path, STATE, mark) == tmp_path / STATE_FILE
    loaded = load_state(tmp_path, mark)
    assert (loaded.step, loaded.scaler, loaded.optimizer["param_groups"]) == (7, {}, STATE.optimizer["param_groups"])
    assert torch.equal(loaded.tensors["a.up"], STATE.tensors["a.up"])
    assert torch.equal(loaded.optimizer["state"][0]["step"], torch.tensor(7.0))


def test_differences_of_the_job_are_all_listed(tmp_path):
    save_state(tmp_path, STATE, {"method.rank": 4, "train.seed": 1, "gone": "x"})
    with pytest.raises(ResumeMismatch) as caught:
        load_state(tmp_path, {"method.rank": 8, "train.seed": 1, "new": 2})
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert lines == ["gone: was 'x', now None", "method.rank: was 4, now 8", "new: was None, now 2"]


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.95])
def test_a_damaged_state_is_a_mismatch_in_words(tmp_path, kept):
    path = save_state(tmp_path, STATE, {})
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(ResumeMismatch, match=r"state\.pt cannot be read .*; remove it to start from the beginning"):
        load_state(tmp_path, {})


@pytest.mark.parametrize("value", [{"version": 99, "fingerprint": {}}, {"step": 3}, [1, 2]])
def test_a_state_of_another_version_is_refused(tmp_path, value):
    torch.save(value, tmp_path / STATE_FILE)
    with pytest.raises(ResumeMismatch, match=r"state\.pt was written by another version"):
        load_state(tmp_path, {})


def test_a_state_with_a_payload_is_never_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    torch.save({"version": 1, "fingerprint": {}, "x": Payload()}, tmp_path / STATE_FILE)
    with pytest.raises(ResumeMismatch, match="cannot be read"):
        load_state(tmp_path, {})
    assert not Path(tmp_path / "executed").exists()


FREE = [
    {"save": {"name": "other", "every_steps": 1, "dtype": "bf16"}},
    {"sample": {"prompts": ["a"], "steps": 3}},
    {"validate": {"every_steps": 2}},
    {"train": {"steps": 9}},
    {"train": {"epochs": 99, "gradient_checkpointing": True}},
    {"save": {"every_minutes": 1.0, "keep_last": 2, "comment": "x"}},
    {"dataset": {"cache": {"dir": "elsewhere", "latents": False}}},
    {"base": {"tokenizer": "elsewhere"}},
]
BOUND = {
    "method.rank": {"method": {"rank": 8}},
    "method.train_unet": {"method": {"train_unet": False}},
    "optimizer.lr": {"optimizer": {"lr": 0.5}},
    "optimizer.args.weight_decay": {"optimizer": {"args": {"weight_decay": 0.5}}},
    "schedule.warmup": {"schedule": {"warmup": 0.5}},
    "train.seed": {"train": {"seed": 5}},
    "train.precision": {"train": {"precision": "bf16"}},
    "train.gradient_accumulation": {"train": {"gradient_accumulation": 2}},
    "dataset.batch_size": {"dataset": {"batch_size": 1}},
    "dataset.captions.shuffle": {"dataset": {"captions": {"shuffle": True}}},
    "base.clip_skip": {"base": {"clip_skip": 2}},
    "validate.split": {"validate": {"split": 0.5}},
}


def merged(job, sections):
    """A job with fields changed one level deeper than `job` does."""
    plain = job().as_dict()
    return from_dict({**plain, **{name: {**plain[name], **section} for name, section in sections.items()}})


@pytest.mark.parametrize("sections", FREE, ids=lambda sections: next(iter(sections)))
def test_settings_that_may_change_before_a_resume(job, sections):
    assert merged(job, sections) != job()
    assert fingerprint(merged(job, sections), "data", {"vae": "v"}, 4) == fingerprint(job(), "data", {"vae": "v"}, 4)


@pytest.mark.parametrize("name", BOUND)
def test_settings_that_must_not_change_before_a_resume(job, name):
    before = fingerprint(job(), "data", {"vae": "v"}, 4)
    after = fingerprint(merged(job, BOUND[name]), "data", {"vae": "v"}, 4)
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} - {
        "optimizer.args",
        "schedule.warmup_steps",
    } == {name}


def test_another_length_is_no_other_job_but_is_said(job, tmp_path):
    marks = [fingerprint(job(schedule={"kind": "cosine", "warmup": 0.5}), "data", {}, length) for length in (4, 8)]
    save_state(tmp_path, STATE, marks[0])
    assert load_state(tmp_path, marks[0]).changes == ()
    assert load_state(tmp_path, marks[1]).changes == ("schedule.length: was 4, now 8", "schedule.warmup_steps: was 2, now 4")
    with pytest.raises(ResumeMismatch, match=r"method\.rank: was 4, now 8\n  schedule\.length: was 4, now 8"):
        load_state(tmp_path, marks[1] | {"method.rank": 8})


def test_what_an_earlier_version_counted_although_it_is_harmless(tmp_path):
    save_state(tmp_path, STATE, {"train.seed": 1, "train.gradient_checkpointing": False, "save.name": "x"})
    assert load_state(tmp_path, {"train.seed": 1}).step == 7


def test_the_number_of_steps_counts_where_the_rate_depends_on_it(job):
    def marks(kind: str) -> tuple[dict, dict]:
        config = job(schedule={"kind": kind})
        return tuple(fingerprint(config, "data", {}, length) for length in (4, 8))

    assert len({str(mark) for mark in marks("constant")}) == 1
    assert len({str(mark) for mark in marks("cosine")}) == 2
    assert len({str(mark) for mark in marks("linear")}) == 2


def test_other_pictures_or_weights_are_another_job(job):
    marks = [fingerprint(job(), *rest) for rest in (("data", {"vae": "v"}, 4), ("other", {"vae": "v"}, 4), ("data", {"vae": "w"}, 4))]
    assert marks[0]["dataset"] != marks[1]["dataset"] and marks[0]["base.vae"] != marks[2]["base.vae"]


def test_a_relative_warmup_counts_the_length_even_at_a_constant_rate(job):
    """Warm-up of a tenth of all steps is another one when there are more steps."""
    config = job(schedule={"kind": "constant_with_warmup", "warmup": 0.5})
    assert fingerprint(config, "data", {}, 10) != fingerprint(config, "data", {}, 20)
    config = job(schedule={"kind": "constant_with_warmup", "warmup": 2})
    assert fingerprint(config, "data", {}, 10) == fingerprint(config, "data", {}, 20)


def test_a_setting_that_an_earlier_version_did_not_have_was_at_its_default(job, tmp_path):
    now = fingerprint(job(), "data", {"vae": "v"}, 4)
    save_state(tmp_path, STATE, {key: mark for key, mark in now.items() if key not in ("train.compile", "noise.offset")})
    assert load_state(tmp_path, now).step == 7
    with pytest.raises(ResumeMismatch, match="train.compile: was 'off', now 'default'$"):
        load_state(tmp_path, now | {"train.compile": "default"})
