"""The real architectures, without memory for their weights."""

from __future__ import annotations

from functools import cache

import torch

from trainer.families import FAMILIES, AdapterTarget, Model


@cache
def meta_model(family: str) -> Model:
    """UNet and text encoders on the meta device; nothing else."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    spec, device = FAMILIES[family].spec, torch.device("meta")
    with device:
        unet = UNet2DConditionModel(**spec.configs["unet"])
        encoders = {part.name: CLIPTextModel(CLIPTextConfig(**spec.configs[part.name])) for part in spec.text_parts}
    rest = {"vae": None, "tokenizer": None, "schedule": None, "clip_skip": 1, "identity": {}, "files": {}}
    return Model(spec, unet, encoders, device=device, dtype=torch.float32, **rest)


def targets_of(family: str) -> list[AdapterTarget]:
    return list(FAMILIES[family].adapter_targets(meta_model(family)))
