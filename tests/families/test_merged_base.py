"""`base.loras` through whole runs: training on top of merged files is training on a model that holds them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from trainer import train

STRENGTH = 0.5


@pytest.fixture(scope="module")
def lora(base, pictures, tmp_path_factory) -> Path:
    """A LoRA that has learned something, with alpha below its rank."""
    folder = tmp_path_factory.mktemp("first")
    return train(tiny.job(base, pictures, folder, method={"rank": 4, "alpha": 2}, optimizer={"lr": 5e-2})).artefact


def merged_by_hand(base: Path, lora: dict[str, torch.Tensor], folder: Path) -> Path:
    """A copy of the base whose weights are W + strength * alpha / rank * up @ down."""
    shutil.copytree(base, folder)
    for part, start, inner in (("unet", "lora_unet_", ""), ("text_encoder", "lora_te_", "text_model.")):
        file = next((folder / part).glob("*.safetensors"))
        weights, taken = load_file(file), 0
        for name, weight in weights.items():
            key = start + (inner + name.removeprefix(inner)).removesuffix(".weight").replace(".", "_")
            if f"{key}.lora_up.weight" in lora:
                up, down = (lora[f"{key}.lora_{half}.weight"].flatten(1) for half in ("up", "down"))
                weights[name] = weight + STRENGTH * float(lora[f"{key}.alpha"]) / 4 * (up @ down).reshape(weight.shape)
                taken += 1
        assert taken > 5
        save_file(weights, file)
    return folder


def test_training_on_merged_files_is_training_on_the_merged_model(base, pictures, lora, tmp_path):
    """In one folder, so that a cache of the plain model's captions would be found if it were taken for the same."""
    held = {"split": 0.2, "every_epochs": None}

    def run(name: str, **checkpoint):
        sections = {"validate": held, "save": {"name": name, "dtype": "fp32"}, "method": {"rank": 4, "train_text_encoder": False}}
        config = tiny.job(base, pictures, tmp_path, **sections, **({"base": checkpoint} if checkpoint else {}))
        return train(config)

    plain = run("plain")
    merged = run("merged", checkpoint=str(base), loras=[{"file": str(lora), "strength": STRENGTH}])
    expected = run("expected", checkpoint=str(merged_by_hand(base, tiny.tensors_of(lora), tmp_path / "by hand")))
    whole = run("whole", checkpoint=str(base), loras=[{"file": str(lora)}])
    assert merged.losses == pytest.approx(expected.losses, rel=1e-3)
    assert [loss for _, loss in merged.validation] == pytest.approx([loss for _, loss in expected.validation], rel=1e-4)
    assert len({run.losses[0] for run in (plain, merged, whole)}) == 3


def test_several_files_add_up_in_their_strengths(base, pictures, lora, tmp_path):
    def losses(name: str, *strengths: float):
        loras = [{"file": str(lora), "strength": strength} for strength in strengths]
        return train(tiny.job(base, pictures, tmp_path, base={"checkpoint": str(base), "loras": loras}, save={"name": name})).losses

    assert losses("halves", 0.5, 0.5) == pytest.approx(losses("whole", 1.0), rel=1e-4)
    assert losses("away", 1.0, -1.0) == pytest.approx(losses("none"), rel=1e-4)
