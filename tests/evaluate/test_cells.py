"""Equal pictures have one fingerprint; what is written into a picture can be read by other programs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from trainer.evaluate.cells import Cell, LoraUse, cheapest_order, fingerprint
from trainer.evaluate.infotext import infotext
from trainer.evaluate.shelf import FolderShelf
from trainer.metadata import with_hashes
from trainer.sample import Request

REQUEST = Request("a cat", "blur", 1, (64, 32), 20, 7.5, "dpmpp_2m", "karras")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for number, path in enumerate(paths):
        path.write_bytes(with_hashes({"up": torch.full((2,), float(number))}, {"ss_epoch": "1"}))
    return paths


def test_loras_without_effect_make_no_difference(files):
    plain = [Cell(REQUEST, (LoraUse(file, 0.0),)).plain() for file in files]
    assert plain == [Cell(REQUEST)] * 2
    assert Cell(REQUEST, (LoraUse(files[0], 0, 0.5),)).plain().loras, "the text encoder's part still acts"
    assert Cell(REQUEST, (LoraUse(files[0], 0.5),)).plain() == Cell(REQUEST, (LoraUse(files[0], 0.5, 0.5),)).plain()


def test_the_fingerprint_follows_contents_not_names(files, tmp_path):
    cell = Cell(REQUEST, (LoraUse(files[0]),))
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(files[0].read_bytes())
    same = fingerprint(cell, "base")
    assert fingerprint(replace(cell, loras=(LoraUse(copy),)), "base") == same
    different = [
        fingerprint(cell, "other base"),
        fingerprint(replace(cell, loras=(LoraUse(files[1]),)), "base"),
        fingerprint(replace(cell, loras=(LoraUse(files[0], 0.9),)), "base"),
        fingerprint(replace(cell, loras=(LoraUse(files[0], 1, 0.9),)), "base"),
        fingerprint(replace(cell, loras=(LoraUse(files[0], blocks="M00=0"),)), "base"),
        fingerprint(replace(cell, request=replace(REQUEST, seed=2)), "base"),
    ]
    assert len({same, *different}) == 7


def test_the_model_changes_least_often_then_files_then_strengths(files):
    cells = [
        Cell(replace(REQUEST, seed=seed), (LoraUse(file, strength),), checkpoint)
        for seed in (1, 2)
        for strength in (0.5, 1.0)
        for file in files
        for checkpoint in ("one", "two")
    ]
    ordered = cheapest_order([*cells, *cells])
    assert len(ordered) == 16

    def changes(of):
        return sum(of(before) != of(after) for before, after in zip(ordered, ordered[1:], strict=False))

    assert changes(lambda cell: cell.checkpoint) == 1
    assert changes(lambda cell: (cell.checkpoint, cell.files())) == 3
    assert changes(lambda cell: (cell.checkpoint, cell.loras)) == 7


def test_infotext_can_be_read_back(files):
    """With the expressions by which web UIs read it: the last line, and name: value pairs with quoted values."""
    cell = Cell(REQUEST, (LoraUse(files[0], 0.8), LoraUse(files[1], 1, 0.5, "IN04=0.5, M00=0")))
    *above, last = infotext(cell, Path("models/some model.safetensors")).split("\n")
    assert above == ["a cat <lora:a:0.8> <lora:b:0.5:1:lbw=IN04=0.5, M00=0>", "Negative prompt: blur"]
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    values = {name: json.loads(value) if value.startswith('"') else value for name, value in pairs}
    hashes = values.pop("Lora hashes")
    assert values.pop("Version").startswith("LoRA Furnace")
    assert values == {
        "Steps": "20",
        "Sampler": "DPM++ 2M",
        "Schedule type": "Karras",
        "CFG scale": "7.5",
        "Seed": "1",
        "Size": "64x32",
        "Model": "some model",
    }
    from safetensors import safe_open

    with safe_open(str(files[0]), "pt") as file:
        assert hashes.startswith(f"a: {file.metadata()['sshs_model_hash'][:12]}, b: ")


def test_a_folder_gives_pictures_back(files, tmp_path):
    folder = tmp_path / "cells"
    cell = Cell(replace(REQUEST, prompt="一只猫"), (LoraUse(files[0]),))
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    mark = fingerprint(cell, "base")
    FolderShelf(folder, {"workflow": '{"nodes": []}'}).put(mark, cell, "1_猫/strength 0.5", picture)
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "foreign.png").write_bytes(b"not a picture")
    Image.new("RGB", (8, 8)).save(folder / "other.png")
    shelf = FolderShelf(folder)
    assert shelf.has(mark) and not shelf.has("0" * 64)
    found = shelf.get(mark)
    assert found and found.tobytes() == picture.tobytes()
    (path,) = folder.glob("1_*.png")
    assert path.name == f"1_猫_strength_0.5_{mark[:8]}.png"
    with Image.open(path) as stored:
        assert stored.info["parameters"].startswith("一只猫 <lora:a:1>\nNegative prompt: blur\nSteps: 20, ")
        assert stored.info["workflow"] == '{"nodes": []}'
        values = json.loads(stored.info["lora_furnace_cell"])
    assert values["loras"][0]["file"] == "a.safetensors" and values["request"]["size"] == [64, 32]


def test_a_lora_that_changes_in_place_is_another_one(files):
    before = fingerprint(Cell(REQUEST, (LoraUse(files[0]),)), "base")
    save_file({"up": torch.ones(3)}, files[0])
    assert fingerprint(Cell(REQUEST, (LoraUse(files[0]),)), "base") != before
