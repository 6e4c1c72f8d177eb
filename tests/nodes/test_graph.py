"""What a drawn cell's models come from: every node upstream, and the files that its widgets name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loaded_pack import Pack

LOADER = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}}


def loaders(count: int, strength: float = 1.0) -> dict[str, Any]:
    """LoRA loaders in a row, each with two links to the one before; the strength is that of the first."""
    graph: dict[str, Any] = {"0": LOADER}
    for number in range(1, count + 1):
        before, own = str(number - 1), {"lora_name": f"{number}", "strength_model": strength if number == 1 else 1.0}
        graph[str(number)] = {"class_type": "LoraLoader", "inputs": {"model": [before, 0], "clip": [before, 1], **own}}
    last = str(count)
    return graph | {"grid": {"class_type": "LoraFurnaceGrid", "inputs": {"model": [last, 0], "clip": [last, 1], "vae": ["0", 2]}}}


def from_one_widget(name: str, text: str) -> dict[str, Any]:
    """A model that depends on one node with one widget."""
    patch = {"class_type": "Patch", "inputs": {"model": ["0", 0], "by": ["1", 0]}}
    grid = {"class_type": "LoraFurnaceGrid", "inputs": {"model": ["2", 0], "clip": ["0", 1], "vae": ["0", 2]}}
    return {"0": LOADER, "1": {"class_type": "Any", "inputs": {name: text}}, "2": patch, "grid": grid}


def origin(pack: Pack, graph: dict[str, Any]) -> str | None:
    return pack.part("nodes.graph").origin_of(graph, "grid", ("model", "clip", "vae"))


@pytest.mark.timeout(60)
def test_many_loaders_in_a_row(pack: Pack) -> None:
    assert origin(pack, loaders(100)) == origin(pack, loaders(100))
    assert origin(pack, loaders(100)) != origin(pack, loaders(100, strength=0.5))


def test_the_names_of_nodes_do_not_count_but_their_outputs_do(pack: Pack) -> None:
    graph = loaders(1)
    renamed = {"7": LOADER, "8": {**graph["1"], "inputs": graph["1"]["inputs"] | {"model": ["7", 0], "clip": ["7", 1]}}}
    renamed["grid"] = {**graph["grid"], "inputs": {"model": ["8", 0], "clip": ["8", 1], "vae": ["7", 2]}}
    assert origin(pack, renamed) == origin(pack, graph)
    graph["grid"]["inputs"]["vae"] = ["0", 0]
    assert origin(pack, renamed) != origin(pack, graph)


def test_unknown_nodes(pack: Pack) -> None:
    graph = loaders(1)
    del graph["0"]
    assert origin(pack, graph) is None and origin(pack, {}) is None


@pytest.mark.parametrize(
    ("widget", "text", "file"),
    [
        ("image", "ref.png", "input/ref.png"),
        ("image", "sub/ref.png", "input/sub/ref.png"),
        ("image", "ref.png [input]", "input/ref.png"),
        ("image", "ref.png [output]", "output/ref.png"),
        ("image", "sub/ref.png [temp]", "temp/sub/ref.png"),
        ("folder", "input/cat", "input/cat/00.txt"),
        ("folder", "cat", "input/cat/00.txt"),
        ("folder", "datasets/birds", "datasets/birds/10_owl/1.txt"),
    ],
)
def test_a_file_that_was_overwritten_makes_another_origin(pack: Pack, widget: str, text: str, file: str) -> None:
    path: Path = pack.comfy.base / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("first")
    graph = from_one_widget(widget, text)
    before = origin(pack, graph)
    assert before and origin(pack, graph) == before
    path.write_text("another content")
    assert origin(pack, graph) != before


@pytest.mark.parametrize("text", ["", ".", "..", "/", "input/", "../models", "input/..", "猫" * 200])
def test_texts_that_name_nothing_in_these_folders(pack: Pack, text: str) -> None:
    before = origin(pack, from_one_widget("text", text))
    (pack.comfy.base / "input/new.txt").write_text("new")
    (pack.comfy.base / "models/vae/new.txt").write_text("new")
    assert before and origin(pack, from_one_widget("text", text)) == before
