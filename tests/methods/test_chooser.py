"""Sizes of the methods against kohya's tables of keys, published figures and arithmetic."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest

from trainer.cli import main
from trainer.families import FAMILIES
from trainer.methods.chooser import CHOICES, method_table, table_lines

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def sizes():
    rows = method_table([FAMILIES["sd15"]], rank=4)
    return {row.choice.name: row.sizes["Stable Diffusion 1.5"] for row in rows}, rows


def test_lora_has_the_numbers_of_kohya_s_table(sizes):
    """tests/golden holds name and shapes of each module of sd-scripts' own file of rank 4."""
    table = json.loads((GOLDEN / "kohya_sd15.json").read_text())
    count = sum(prod(down) + prod(up) for _, down, up in table)
    assert sizes[0]["LoRA"].numbers == count
    assert sizes[0]["LoRA"].file_mib == pytest.approx(2 * count / 2**20)


def test_the_other_methods_by_arithmetic(sizes):
    found, _ = sizes
    assert found["LoHa"].numbers == 2 * found["LoRA"].numbers  # a pair of matrices twice
    assert found["DyLoRA"].numbers == found["LoRA"].numbers < found["LoCon"].numbers
    assert found["LoKr"].numbers < found["LoRA"].numbers < found["DoRA"].numbers
    assert found["Textual inversion"].numbers == 4 * 768
    layers = [2 * (width * 2 * width + 2 * width + 2 * width * width + width) for width in (320, 640, 768, 1280)]
    assert found["Hypernetwork"].numbers == sum(layers)
    unet, text, vae = 859_520_964, 123_060_480, 83_653_863  # as published of Stable Diffusion 1.5
    assert found["DreamBooth"].numbers == unet + text
    assert found["DreamBooth"].file_mib == pytest.approx(2 * (unet + text + vae) / 2**20)
    assert found["LoRA"].memory_mib == pytest.approx((2 * (unet + text) + 20 * found["LoRA"].numbers) / 2**20)


def test_what_is_not_built_says_so(sizes):
    text = table_lines(sizes[1], 4)
    assert [row.choice.name for row in sizes[1]] == [choice.name for choice in CHOICES]
    for row in sizes[1]:
        line = next(line for line in text if line.startswith(f"{row.choice.name}: "))
        assert ("Not built here yet" in line) == (not row.built)
    assert all(row.built == (row.choice.kind == "adapter") for row in sizes[1] if row.choice.kind == "adapter")


def test_an_unknown_family_is_refused(capsys):
    assert main(["methods", "--family", "sd9"]) == 2
    assert "known: sd15, sd2, sdxl" in capsys.readouterr().err
