"""Models near to those that can be trained on, as files and as folders, are refused by what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from trainer.bench_files import checkpoint_shapes
from trainer.errors import ModelFileError
from trainer.families import FAMILIES, find_family

NAMES = tuple(tiny.TINY)
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
REFINER = "the SDXL refiner, which only finishes pictures that another model began"
SMALL = {name: tiny.family_of(name) for name in NAMES}


def single_file(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(shape) for key, shape in checkpoint_shapes(SMALL[name].spec)}


def refusal(path: Path, families=SMALL) -> str:
    with pytest.raises(ModelFileError) as caught:
        find_family(str(path), "auto", families)
    assert "cannot be trained on; expected a checkpoint of: Stable Diffusion 1.5, " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_inpainting_file(tmp_path, name):
    tensors = single_file(name)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    assert find_family(str(path), "auto", SMALL).spec.name == name
    outer = tensors[FIRST].shape[0]
    save_file({**tensors, FIRST: torch.zeros(outer, 9, 3, 3)}, path)
    assert "is an inpainting or editing model (its UNet takes 9 channels, not 4)" in refusal(path)


@pytest.mark.parametrize("name", NAMES)
def test_an_inpainting_folder(tmp_path, name):
    """Of its own class, or saved under that of the plain model."""
    base = tiny.write_base(tmp_path / "base", family=name)
    config = base / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 9}))
    for kind in (FAMILIES[name].spec.pipeline, FAMILIES[name].spec.pipeline.replace("Pipeline", "InpaintPipeline")):
        (base / "model_index.json").write_text(json.dumps({"_class_name": kind}))
        expected = f"is a diffusers folder of {kind}: an inpainting or editing model (its UNet takes 9 channels, not 4)"
        assert expected in refusal(base, FAMILIES)


def test_the_refiner_as_a_file(tmp_path):
    """One text encoder, OpenCLIP's, in the first place."""
    tensors = {
        name.replace("conditioner.embedders.1.", "conditioner.embedders.0."): tensor
        for name, tensor in single_file("sdxl").items()
        if not name.startswith("conditioner.embedders.0.")
    }
    save_file(tensors, tmp_path / "refiner.safetensors")
    assert f"refiner.safetensors is {REFINER}" in refusal(tmp_path / "refiner.safetensors")


@pytest.mark.parametrize("kind", ["StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLPipeline"])
def test_the_refiner_as_a_folder(tmp_path, kind):
    base = tiny.write_base(tmp_path / "base", family="sdxl")
    shutil.rmtree(base / "text_encoder")
    config = base / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "cross_attention_dim": 1280}))  # as the real one says
    (base / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    assert f"is a diffusers folder of {kind}: {REFINER}" in refusal(base, FAMILIES)
