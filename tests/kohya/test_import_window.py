"""What means something else in the kohya_ss window than in the scripts."""

from __future__ import annotations

import json

import pytest

from trainer.config import from_dict
from trainer.kohya import convert, read_files
from trainer.kohya.read import Options

BASE = {"pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "train", "max_resolution": "512"}


def window(**values):
    """Settings that the window saved."""
    return convert(Options({"lora_type": "Standard", **BASE, **values}, window=True))


@pytest.mark.parametrize(
    ("values", "epochs", "steps"),
    [
        ({"epoch": 5, "max_train_epochs": 0, "max_train_steps": 0}, 5, None),
        ({"epoch": 5, "max_train_epochs": "", "max_train_steps": ""}, 5, None),
        ({"epoch": 5}, 5, None),
        ({"epoch": 1, "max_train_epochs": 0, "max_train_steps": 1600}, None, 1600),
        ({"epoch": 1, "max_train_epochs": "", "max_train_steps": "1600"}, None, 1600),
        ({"epoch": 1, "max_train_epochs": 8, "max_train_steps": 1600}, 8, None),
        ({"epoch": 1, "max_train_epochs": "8", "max_train_steps": 0}, 8, None),
    ],
)
def test_epochs_override_steps_and_steps_override_epoch(tmp_path, values, epochs, steps):
    file = tmp_path / "saved.json"
    file.write_text(json.dumps({"LoRA_type": "Standard", **BASE, **values}))
    found = convert(read_files([file]))
    from_dict(found.values)
    assert (found.get("train.epochs"), found.get("train.steps")) == (epochs, steps)
    overridden = "epoch = 1: is for the window only, where max_train_epochs and max_train_steps override it"
    assert (overridden in found.needless) == (values["epoch"] == 1)
    assert any("epochs win there" in text for text in found.different) == (epochs == 8 and values["max_train_steps"] == 1600)


def test_the_scripts_read_no_epoch():
    script = {"pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "train", "resolution": "512"}
    found = convert(Options({**script, "epoch": 1, "max_train_steps": 1600, "noise_offset_type": "Original"}))
    assert (found.get("train.epochs"), found.get("train.steps"), found.unknown) == (None, 1600, [])
    assert [text.split(" = ")[0] for text in found.needless] == ["epoch", "noise_offset_type"]


@pytest.mark.parametrize(
    ("values", "cycles"),
    [
        ({"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": ""}, 6),
        ({"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 2}, 2),
        ({"lr_scheduler": "cosine", "lr_scheduler_num_cycles": ""}, None),
    ],
)
@pytest.mark.parametrize("steps", [0, 1600])
def test_no_number_of_cycles_means_one_for_each_epoch(values, cycles, steps):
    assert window(epoch=6, max_train_steps=steps, **values).get("schedule.cycles") == cycles
