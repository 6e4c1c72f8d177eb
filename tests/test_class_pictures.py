"""Regularisation pictures drawn with the base model."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from trainer import TrainConfig, check, draw_class_pictures, train
from trainer.class_pictures import draw_class_set
from trainer.cli import main
from trainer.config import SampleSection, from_dict
from trainer.errors import ConfigError, OutputError
from trainer.events import CellDrawn

SAMPLE = {"prompts": ["a cat", "a dog"], "steps": 2, "cfg": 1.0, "seed": 5}
FP32 = {"precision": "fp32", "device": "cpu"}


def draw(config: TrainConfig, folder: Path, count: int, **changes):
    sample = SampleSection.model_validate(SAMPLE)
    return draw_class_pictures(config.base, sample, (64, 64), folder, count, **FP32, **changes)


def parameters(folder: Path) -> list[tuple[str, int, str]]:
    """Prompt, seed and caption of each picture."""
    found = []
    for path in sorted(folder.glob("*.png"), key=lambda path: int(path.name.partition("_")[0])):
        with Image.open(path) as picture:
            assert picture.size == (64, 64)
            request = json.loads(picture.info["lora_furnace_cell"])["request"]
        found.append((request["prompt"], request["seed"], path.with_suffix(".txt").read_text(encoding="utf-8")))
    return found


def test_prompts_take_turns_and_each_picture_has_its_own_seed(job, tmp_path):
    draw(job(), tmp_path / "class", 3)
    assert parameters(tmp_path / "class") == [("a cat", 5, "a cat"), ("a dog", 6, "a dog"), ("a cat", 7, "a cat")]


def test_it_goes_on_where_it_was_stopped_and_a_larger_number_adds(job, tmp_path):
    drawn: list[int] = []

    def listen(event):
        if isinstance(event, CellDrawn):
            drawn.append(event.done)

    half = draw(job(), tmp_path / "class", 4, listen=listen, stop=lambda: len(drawn) >= 2)
    assert not half.finished and len(parameters(tmp_path / "class")) == 2
    before = {path.name: path.read_bytes() for path in (tmp_path / "class").iterdir()}
    assert draw(job(), tmp_path / "class", 5, listen=listen).finished
    assert drawn == [1, 2, 3, 4, 5]
    assert [seed for _, seed, _ in parameters(tmp_path / "class")] == [5, 6, 7, 8, 9]
    assert before.items() <= {path.name: path.read_bytes() for path in (tmp_path / "class").iterdir()}.items()


def test_a_larger_set_takes_what_a_smaller_one_has_with_its_captions(job, tmp_path):
    drawn: list[int] = []

    def draw_set(count: int) -> Path:
        drawn.clear()
        return draw_class_set(
            job().base, SampleSection.model_validate(SAMPLE), (64, 64), tmp_path, count, **FP32,
            listen=lambda event: drawn.append(event.done) if isinstance(event, CellDrawn) else None,
        )  # fmt: skip

    small = draw_set(2)
    assert drawn == [1, 2]
    next(small.glob("1_*.txt")).write_text("an edited caption", encoding="utf-8")
    large = draw_set(3)
    assert drawn == [3] and [caption for *_, caption in parameters(large)] == ["an edited caption", "a dog", "a cat"]
    assert draw_set(2) == small and drawn == []
    assert len(parameters(small)) == 2


def test_training_takes_them_as_regularization(job, tmp_path):
    plain = job(train={**FP32, "steps": None, "epochs": 1})
    draw(plain, tmp_path / "class", 5)
    folders = [*plain.dataset.folders, {"path": str(tmp_path / "class"), "regularization": True}]
    config = from_dict(plain.model_dump() | {"dataset": plain.dataset.model_dump() | {"folders": folders}})
    assert (check(plain).plan.total_steps, check(config).plan.total_steps) == (3, 5)  # pairs of 3 + 2 and of 8 + 2 pictures
    assert train(config).status == "done"


def test_the_command_takes_folder_and_words_from_the_configuration(job, tmp_path, capsys):
    values = job().model_dump(mode="json")
    path = tmp_path / "job.json"

    def write(**folder):
        values["dataset"]["folders"] = [
            values["dataset"]["folders"][0],
            {"path": str(tmp_path / "class"), "regularization": True, **folder},
        ]
        values["sample"] |= {"steps": 2, "cfg": 1.0}
        path.write_text(json.dumps(values), encoding="utf-8")

    write()
    assert main(["regularize", str(path), "--count", "1"]) == 2
    assert "--prompt" in capsys.readouterr().err
    write(class_words="a cat")
    assert main(["regularize", str(path), "--count", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["status"], answer["folder"], answer["pictures"], answer["others"]) == ("done", str(tmp_path / "class"), 2, 0)
    assert [caption for *_, caption in parameters(tmp_path / "class")] == ["a cat", "a cat"]
    assert main(["regularize", str(path), "--count", "1", "--prompt", "a dog"]) == 0
    assert "2 other pictures in" in capsys.readouterr().out
    assert main(["regularize", str(path), "--count", "1", "--out", str(tmp_path / "other"), "--prompt", "a dog"]) == 0
    assert "regularization: true" in capsys.readouterr().out and parameters(tmp_path / "other")[0][2] == "a dog"


def test_a_folder_that_cannot_be_made_is_said_before_the_model_loads(job, tmp_path):
    (tmp_path / "class").touch()
    told = []
    with pytest.raises(OutputError, match="folder: .*class could not be written"):
        draw(job(), tmp_path / "class", 1, listen=told.append)
    assert told == []


def test_a_caption_that_cannot_be_written_whole_is_not_written(job, tmp_path, monkeypatch):
    def full(_file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        draw(job(), tmp_path / "class", 1)
    assert list((tmp_path / "class").iterdir()) == []


@pytest.mark.parametrize(("prompts", "count", "field"), [([], 1, "prompts"), (["a cat"], 0, "count")])
def test_nothing_to_draw_is_said(job, tmp_path, prompts, count, field):
    with pytest.raises(ConfigError, match=field):
        draw_class_pictures(job().base, SampleSection(prompts=prompts), (64, 64), tmp_path / "class", count)
    assert not (tmp_path / "class").exists()
