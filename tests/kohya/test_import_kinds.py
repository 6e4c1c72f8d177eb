"""Regularisation, masks, augmentation, kinds of adapters and how they are held back: what becomes of each of kohya's settings."""

from __future__ import annotations

import pytest

from trainer.config import from_dict
from trainer.kohya import convert
from trainer.kohya.read import Options

BASE = {"pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "train", "resolution": "512"}


def imported(**values):
    return convert(Options({**BASE, **values}))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"reg_data_dir": "reg"}, {"dataset.folders.1.path": "reg", "dataset.folders.1.regularization": True}),
        ({"conditioning_data_dir": "masks", "masked_loss": True}, {"dataset.folders.0.masks": "masks"}),
        ({"alpha_mask": True}, {"dataset.alpha_mask": True}),
        ({"flip_aug": True}, {"dataset.augment.flip": True}),
        ({"random_crop": True}, {"dataset.augment.random_crop": True}),
        ({"color_aug": True}, {"dataset.augment.color": 1.0}),
        ({"prior_loss_weight": 0.5, "reg_data_dir": "reg"}, {"loss.prior_weight": 0.5}),
        ({"base_weights": ["a.safetensors", "b.safetensors"], "base_weights_multiplier": [0.5]}, {
            "base.loras.0": {"file": "a.safetensors", "strength": 0.5},
            "base.loras.1": {"file": "b.safetensors", "strength": 1.0},
        }),
        ({"network_weights": "old.safetensors"}, {"method.continue_from": "old.safetensors"}),
        ({"network_dropout": 0.1}, {"method.dropout": 0.1}),
        ({"scale_weight_norms": 1.0}, {"method.max_norm": 1.0}),
        ({"max_grad_norm": 0}, {"optimizer.max_grad_norm": 0.0}),
        ({"save_every_n_epochs": 2, "save_last_n_epochs": 6}, {"save.keep_last": 3}),
        ({"stop_text_encoder_training": 500}, {"method.stop_text_encoder": 500}),
        ({"training_comment": "trigger: zibu"}, {"save.comment": "trigger: zibu"}),
    ],
    ids=lambda value: next(iter(value)),
)  # fmt: skip
def test_settings_of_the_command(values, expected):
    found = imported(**values)
    assert {setting: found.get(setting) for setting in expected} == expected
    from_dict(found.values)


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("networks.lora", ["conv_dim=8", "conv_alpha=2"], {"adapter": "lora", "conv_rank": 8, "conv_alpha": 2.0}),
        ("networks.lora", ["rank_dropout=0.2", "module_dropout=0.1"], {"rank_dropout": 0.2, "module_dropout": 0.1}),
        ("networks.lora", ["loraplus_lr_ratio=16"], {}),
        ("networks.dylora", ["unit=4"], {"adapter": "dylora", "dylora_unit": 4}),
        ("lycoris.kohya", ["algo=locon", "conv_dim=4"], {"adapter": "lora", "conv_rank": 4}),
        ("lycoris.kohya", ["algo=loha"], {"adapter": "loha"}),
        ("lycoris.kohya", ["algo=loha", "use_tucker=True", "conv_dim=4"], {"adapter": "loha", "tucker": True}),
        ("lycoris.kohya", ["algo=lokr", "factor=8"], {"adapter": "lokr", "lokr_factor": 8}),
        ("lycoris.kohya", ["algo=lokr", "decompose_both=True"], {"lokr_decompose_both": True}),
        ("lycoris.kohya", ["algo=lora", "dora_wd=True"], {"adapter": "lora", "dora": True}),
        ("lycoris.kohya", ["algo=loha", "dora_wd=True"], {"adapter": "loha", "dora": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_arguments_of_the_network(module, arguments, expected):
    found = imported(network_module=module, network_args=arguments, network_dim=16)
    assert {name: found.get(f"method.{name}") for name in expected} == expected
    assert found.get("optimizer.lora_plus") == (16.0 if "loraplus" in arguments[0] else None)
    assert (found.lost, found.unknown) == ([], [])
    from_dict(found.values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (16, 4.0)),
        ({"network_args": ["algo=loha"]}, (16, 4.0)),
        ({"network_args": ["algo=lokr", "factor=8"]}, (16, 4.0)),
        ({"network_args": ["algo=locon", "conv_dim=8"]}, (8, 4.0)),
        ({"network_args": ["conv_dim=0", "conv_alpha=2"]}, (16, 2.0)),
        ({"network_args": ["conv_dim=8"], "network_alpha": 0}, (8, None)),  # as strong as the rest: alpha is the rank there too
        ({"network_args": ["preset=attn-mlp"]}, (None, None)),
        ({"network_args": ["preset=full-lin", "conv_dim=8"]}, (None, None)),
        ({"network_args": ["preset=unet-only"]}, (16, 4.0)),
        ({"network_args": ["algo=full"]}, (None, None)),
        ({"network_module": "networks.lora"}, (None, None)),
    ],
    ids=str,
)
def test_lycoris_trains_convolutions_unless_it_is_told_otherwise(values, expected):
    found = imported(**{"network_module": "lycoris.kohya", "network_dim": 16, "network_alpha": 4, **values})
    assert (found.get("method.conv_rank"), found.get("method.conv_alpha")) == expected
    from_dict(found.values)


def test_lycoris_takes_the_scripts_defaults_for_convolutions():
    found = imported(network_module="lycoris.kohya")
    assert [found.get(f"method.{name}") for name in ("rank", "alpha", "conv_rank", "conv_alpha")] == [4, 1.0, 4, 1.0]


def test_kinds_of_the_window():
    for name, adapter in (("Kohya LoCon", "lora"), ("LyCORIS/LoHa", "loha"), ("LyCORIS/LoKr", "lokr"), ("Kohya DyLoRA", "dylora")):
        found = convert(Options({**BASE, "lora_type": name, "network_dim": 16}, window=True))
        assert found.get("method.adapter") == adapter, name
