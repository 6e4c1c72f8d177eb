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


@pytest.mark.parametrize(
    ("rates", "trained"),
    [
        ({"unet_lr": 0, "text_encoder_lr": 0}, (True, True)),
        ({"unet_lr": "0", "text_encoder_lr": ""}, (True, True)),
        ({"unet_lr": 0, "text_encoder_lr": 5e-5}, (False, True)),
        ({"unet_lr": 5e-5, "text_encoder_lr": 0}, (True, False)),
    ],
)
def test_without_both_rates_the_general_one_trains_both_parts(rates, trained):
    found = window(learning_rate=1e-4, **rates)
    config = from_dict(found.values)
    assert (config.method.train_unet, config.method.train_text_encoder) == trained
    if all(trained):
        assert (config.optimizer.lr, config.optimizer.unet_lr, config.optimizer.text_encoder_lr) == (1e-4, None, None)


@pytest.mark.parametrize(
    ("percent", "stop", "trained"), [(0, None, True), (40, 0.4, True), (100, None, True), ("100", None, True), (-1, None, False)]
)
def test_the_text_encoder_stops_at_a_percentage(percent, stop, trained):
    found = window(stop_text_encoder_training=percent)
    method = from_dict(found.values).method
    assert (method.stop_text_encoder, method.train_text_encoder) == (stop, trained)
    assert found.unknown == []
    assert any("the scripts ignore it; here it acts" in text for text in found.different) == (stop is not None or not trained)


def test_a_text_encoder_that_stops_before_the_start_is_not_trained_in_scripts_too():
    found = convert(Options({**BASE, "stop_text_encoder_training": -1}))
    assert (found.get("method.stop_text_encoder"), found.get("method.train_text_encoder")) == (None, False)
    assert "stop_text_encoder_training: the scripts ignore it; here it acts" in found.different


def test_a_whole_warm_up_is_not_one_step():
    assert window(lr_scheduler="cosine", lr_warmup=100).get("schedule.warmup") == 0.9999
    script = convert(Options({**BASE, "lr_scheduler": "cosine", "lr_warmup_steps": "100%"}))
    assert script.get("schedule.warmup") == 0.9999


@pytest.mark.parametrize("text", ['"weight_decay=0.1" "betas=0.9,0.99"', 'weight_decay="0.1" betas="0.9,0.99"'])
def test_quotes_are_not_part_of_arguments(text):
    found = window(optimizer_args=text)
    assert (found.get("optimizer.args"), found.unknown) == ({"weight_decay": 0.1, "betas": [0.9, 0.99]}, [])


def test_a_last_timestep_of_0_is_none():
    assert from_dict(window(max_timestep=0).values).noise.max_timestep == 1000
    assert window(max_timestep=700).get("noise.max_timestep") == 700
