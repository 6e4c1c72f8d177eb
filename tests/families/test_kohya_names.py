"""The saved names and shapes of a full-size model are kohya's, so that every program that reads its files reads ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainer.adapters import ADAPTERS, LayerShape
from trainer.families import FAMILIES, Model
from trainer.families.sd_specs import SD15, TEXT_ENCODER, UNET

GOLDEN = Path(__file__).parents[1] / "golden" / "kohya_sd15.json"  # [key, shape of lora_down, shape of lora_up], rank 4
RANK = 4


@pytest.fixture(scope="module")
def targets():
    """The layers of the real architecture, without memory for the weights."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet, text_encoder = UNet2DConditionModel(**UNET), CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))
    rest = {"vae": None, "tokenizer": None, "schedule": None, "clip_skip": 1, "identity": {}, "files": {}}
    return FAMILIES["sd15"].adapter_targets(Model(SD15, unet, text_encoder, device=torch.device("meta"), dtype=torch.float32, **rest))


def test_keys_and_shapes_are_kohyas(targets):
    expected = {key: (down, up) for key, down, up in json.loads(GOLDEN.read_text())}
    found = {}
    for target in targets:
        tensors = ADAPTERS["lora"].init(LayerShape.of(target.module), RANK, torch.Generator())
        found[target.key] = (list(tensors["lora_down.weight"].shape), list(tensors["lora_up.weight"].shape))
    assert len(found) == len(targets) == 264
    assert found == expected


def test_parts_and_numbers_of_parameters_are_kohyas(targets):
    """72 modules of 663,552 numbers in the text encoder, 192 of 1,695,744 in the UNet."""
    counts = {}
    for target in targets:
        shape = LayerShape.of(target.module).weight
        inputs = torch.Size(shape[1:]).numel()
        modules, numbers = counts.get(target.part, (0, 0))
        counts[target.part] = (modules + 1, numbers + RANK * (inputs + shape[0]))
    assert counts == {"text_encoder": (72, 663_552), "unet": (192, 1_695_744)}
