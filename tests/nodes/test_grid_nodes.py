"""The grid nodes beside a fake ComfyUI; tests/comfyui compares the native one's pixels with ComfyUI's own nodes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loaded_pack import Pack
from PIL import Image
from test_train_node import inputs

GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}},
    "9": {"class_type": "LoraFurnaceGrid", "inputs": {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "loras": "a"}},
}


@pytest.fixture
def lora(pack: Pack) -> str:
    return pack.call("TrainLora", **inputs(pack))["result"][1]


@pytest.fixture
def native(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A ComfyUI whose sampler notes what it is asked for; two LoRA files and a checkpoint."""
    host, drawn = pack.part("nodes.host"), []

    def sample(model, positive, negative, settings):
        drawn.append((model, positive, settings.cfg))
        return torch.full((1, 8, 8, 3), len(drawn) / 100)

    monkeypatch.setattr(host, "load_lora", lambda path: path.stem)
    monkeypatch.setattr(host, "apply_lora", lambda model, clip, lora, *strengths: (f"{model}+{lora}{strengths}", clip))
    monkeypatch.setattr(host, "encode_text", lambda clip, text: text)
    monkeypatch.setattr(host, "sample", sample)
    monkeypatch.setattr(host, "decode", lambda vae, latents: latents)
    for kind, name in (("loras", "a-000002"), ("loras", "a-000010"), ("checkpoints", "base")):
        (pack.comfy.base / "models" / kind / f"{name}.safetensors").write_bytes(name.encode())
    return drawn


def call(pack: Pack, **changes: Any) -> Any:
    given = {"model": "m", "clip": "c", "vae": "v", "node_id": "9", "prompt": GRAPH, "loras": "a-*", "y_values": "0, 1", "prompts": "x"}
    return pack.call("Grid", **given | changes)


def test_pictures_are_saved_with_the_graph_and_not_drawn_again(pack: Pack, native: list[Any]) -> None:
    answer = call(pack, extra_pnginfo={"workflow": {"nodes": []}})
    assert [model for model, *_ in native] == ["m", "m+a-000002(1.0, 1.0)", "m+a-000010(1.0, 1.0)"]
    assert answer["result"][1].shape == (4, 8, 8, 3)
    (shown,) = answer["ui"]["images"]
    folder = pack.comfy.base / "output/lora_furnace/grids/grid"
    assert shown == {"filename": "grid.png", "subfolder": "lora_furnace/grids/grid", "type": "output"}
    cells = sorted((folder / "cells").glob("*.png"))
    assert len(cells) == 3
    with Image.open(cells[-1]) as picture:
        assert json.loads(picture.info["prompt"]) == GRAPH and json.loads(picture.info["workflow"]) == {"nodes": []}
        assert "Steps: 20, Sampler: Euler," in picture.info["parameters"] and "Model: base" in picture.info["parameters"]
    again = call(pack)
    assert len(native) == 3 and torch.equal(again["result"][1], answer["result"][1])


@pytest.mark.parametrize(
    ("texts", "file"),
    [
        ({"loras": "a*"}, "loras/a-000020"),
        ({"x_axis": "lora", "x_values": "a-*", "loras": None}, "loras/a-000020"),
        ({"stack": "base:0.5\na-000002:0.5:0"}, "loras/a-000002"),
        ({"z_axis": "checkpoint", "z_values": "base.safetensors"}, "checkpoints/base"),
    ],
)
def test_files_behind_texts_are_noticed(pack: Pack, native: list[Any], texts: dict[str, Any], file: str) -> None:
    (pack.comfy.base / "models/loras/base.safetensors").write_bytes(b"1")
    node = pack.node("Grid")
    before = node.IS_CHANGED(**texts)
    assert node.IS_CHANGED(**texts) == before
    (pack.comfy.base / f"models/{file}.safetensors").write_bytes(b"a new or another content")
    assert node.IS_CHANGED(**texts) != before


def test_files_that_a_run_saved_are_noticed(pack: Pack, lora: str) -> None:
    before = pack.node("Grid").IS_CHANGED(loras="cat/")
    (pack.comfy.base / "models/loras" / lora.splitlines()[0]).write_bytes(b"another content")
    assert before and pack.node("Grid").IS_CHANGED(loras="cat/") != before


def test_figures(pack: Pack, native: list[Any]) -> None:
    *_, table = call(pack, figures=True)["result"]
    lines = table.splitlines()
    assert lines[0] == "prompt,lora,strength,change" and len(lines) == 5
    assert lines[1].startswith("x,a-000002,strength 0,0")
    assert (pack.comfy.base / "output/lora_furnace/grids/grid/curves.png").is_file()


def test_a_clip_model_that_is_none_is_named_before_a_picture_is_drawn(pack: Pack, native: list[Any], tmp_path: Path) -> None:
    folders = sys.modules["folder_paths"].folder_names_and_paths  # pyright: ignore
    folders["clip_vision"] = tmp_path
    (tmp_path / "clip.safetensors").write_bytes(b"no model")
    with pytest.raises(pack.part("trainer.errors").ModelFileError, match="clip"):
        call(pack, figures=True, clip_vision="clip.safetensors")
    assert not native


@pytest.mark.parametrize("change", ["widget", "file"])
def test_another_model_is_drawn_anew(pack: Pack, native: list[Any], change: str) -> None:
    call(pack)
    graph = json.loads(json.dumps(GRAPH))
    if change == "widget":
        graph["1"]["inputs"]["ckpt_name"] = "other.safetensors"
    else:
        (pack.comfy.base / "models/checkpoints/base.safetensors").write_bytes(b"another model")
    call(pack, prompt=graph)
    assert len(native) == 6


def test_without_a_graph_nothing_counts_as_drawn(pack: Pack, native: list[Any]) -> None:
    call(pack, prompt=None)
    call(pack, prompt=None)
    assert len(native) == 6


def test_a_checkpoint_is_loaded_once(pack: Pack, native: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (pack.comfy.base / "models/checkpoints/other.safetensors").write_bytes(b"2")
    loads: list[str] = []
    load = lambda path: loads.append(path.stem) or (path.stem, "c", "v")  # noqa: E731
    monkeypatch.setattr(pack.part("nodes.host"), "load_checkpoint", load)
    call(pack, z_axis="checkpoint", z_values="base.safetensors\nother.safetensors", stack="a-000002:0.5:0")
    assert loads == ["base", "other"]
    assert native[1][0] == "base+a-000002(1.0, 1.0)+a-000002(0.5, 0.0)"
    assert len(native) == 6


def test_other_axes(pack: Pack, native: list[Any]) -> None:
    call(pack, loras="", x_axis="cfg", x_values="1-3/1", y_axis="prompt", y_values="x, 红", z_axis="nothing")
    assert [(text, cfg) for _, text, cfg in native] == [("x", 1), ("x", 2), ("x", 3), ("红", 1), ("红", 2), ("红", 3)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x_axis": "nothing"}, "2 files need an axis `lora`"),
        ({"loras": "b*"}, "names no LoRA file"),
        ({"y_axis": "lora", "y_values": "a-000002"}, "lora stands on 2 axes"),
        ({"prompts": ""}, "at least one prompt"),
        ({"z_axis": "sampler", "z_values": "magic"}, "'magic' is unknown"),
        ({"grid_name": "../x"}, "grid_name"),
        ({"loras": "", "x_axis": "nothing", "stack": "a-000002:0.5"}, "strength: this axis needs a LoRA"),
    ],
)
def test_mistakes(pack: Pack, native: list[Any], wrong: dict[str, str], message: str) -> None:
    with pytest.raises(pack.part("trainer.errors").ConfigError, match=message):
        call(pack, **wrong)
    assert not native


def test_trainers_sampler_and_the_files_of_a_run(pack: Pack, lora: str) -> None:
    run = f"{Path(lora.splitlines()[0]).stem}/"
    answer = pack.call(
        "GridTrainer", base=pack.base(), loras="", x_axis="lora", x_values=run, y_values="0, 1", prompts="a", steps=1,
        precision="fp32", node_id="9", prompt=GRAPH,
    )  # fmt: skip
    assert answer["result"][1].shape == (2, 64, 64, 3)
    assert pack.comfy.texts[-1] == ("9", "picture 2/2")


def test_advice_recommends_a_file_or_says_why_not(pack: Pack, lora: str) -> None:
    dataset = pack.call("Dataset", folder="input/cat", width=64, height=64)[0]
    given = {"base": pack.base(), "dataset": dataset, "loras": lora, "strengths": "1", "attributes": "red", "steps": 1, "precision": "fp32"}
    answer = pack.call("Advice", **given, node_id="9")
    text, name, strength, shown = answer["result"]
    assert "Hold out pictures" in text and (name, strength) == (lora.splitlines()[-1], 1.0)
    assert len(shown) == len(answer["ui"]["images"]) == 2
    with pytest.raises(pack.part("trainer.errors").ConfigError, match="loras: write at least one"):
        pack.call("Advice", **given | {"loras": ""})
