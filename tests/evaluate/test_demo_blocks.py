"""On the demo base: training one block changes that block alone, and the block analysis finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from trainer import train
from trainer.block_weights import weight_blocks
from trainer.cli import main
from trainer.config import BaseSection, from_dict
from trainer.demo import base_folder, dataset_folder
from trainer.families import FAMILIES, find_family
from trainer.families.loading import load_base

BLOCK, MODULES = "OUT03", 12
OTHERS = ("IN04", "IN07", "M00", "OUT00", "OUT01", "OUT04")


def trained(folder: Path, weights: str) -> Path:
    """Four steps at a high rate on the demo's pictures, of the image part alone."""
    config = from_dict(
        {
            "base": {"checkpoint": str(base_folder())},
            "dataset": {"folders": [{"path": str(dataset_folder())}], "resolution": 64, "batch_size": 2},
            "method": {"rank": 4, "alpha": 4, "train_text_encoder": False, "blocks": {"weights": weights}},
            "optimizer": {"lr": 0.05},
            "schedule": {"kind": "constant", "warmup": 0},
            "train": {"steps": 4, "precision": "fp32", "device": "cpu"},
            "save": {"dir": str(folder), "name": "one", "every_epochs": None},
            "sample": {"steps": 4, "cfg": 1, "every_epochs": None},
        }
    )
    return train(config).artefact


def analysed(lora: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    options = ["--prompt", "a zibu", "--seeds", "1,2", "--dir", str(folder / "effects"), "--json"]
    assert main(["blocks", str(lora), *options]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_only_the_trained_block_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Merged into the base, every other weight of the model stays as it is, bit for bit."""
    lora = trained(tmp_path, ", ".join(f"{block}=0" for block in OTHERS))
    family = find_family(str(base_folder()), "auto", FAMILIES)
    table, device = family.spec.blocks, torch.device("cpu")
    assert table
    plain, merged = (
        load_base(family, BaseSection(checkpoint=str(base_folder()), loras=loras), device, torch.float32)
        for loras in ((), ({"file": str(lora)},))
    )
    differing = []
    for part, others in (
        (plain.unet, merged.unet),
        *((plain.text_encoders[name], merged.text_encoders[name]) for name in plain.text_encoders),
    ):
        state = others.state_dict()
        differing += [name for name, tensor in part.state_dict().items() if not torch.equal(tensor, state[name])]
    blocks = {table.block_of("lora_unet_" + name.replace(".", "_")) for name in differing}
    assert (len(differing), blocks) == (MODULES, {BLOCK})

    found = analysed(lora, tmp_path, capsys)
    assert [(row["block"], row["share"]) for row in found["blocks"]] == [(BLOCK, 1.0)]
    (effect,) = found["effects"]
    assert effect["blocks"] == [BLOCK] and effect["mean"] > 0.05


def test_the_analysis_finds_the_block_that_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks are in the file; the others had a hundredth of the rate."""
    lora = trained(tmp_path, ", ".join(f"{block}=0.01" for block in OTHERS))
    found = analysed(lora, tmp_path, capsys)
    norms = {row["block"]: row["norm"] for row in found["blocks"]}
    means = {effect["blocks"][0]: effect["mean"] for effect in found["effects"]}
    assert set(norms) == set(means) == {BLOCK, *OTHERS}
    for values in (norms, means):
        most = values.pop(BLOCK)
        assert most > 5 * max(values.values()), values
    weights = weight_blocks(tiny.tensors_of(lora), found["suggested"]).blocks
    assert [name for name in (BLOCK, *OTHERS) if weights[name]] == [BLOCK]
