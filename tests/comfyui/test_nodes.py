"""The pack in a real ComfyUI over HTTP: training, Cancel, native loading, and strength tests that equal native pictures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import SIZE, drawn, model_and_latent, pictures, use
from harness import Comfy, Json, outcome

PACK_ROOT = Path(__file__).resolve().parents[2]


def demo(name: str, steps: int, **settings: Any) -> Json:
    """Demo Base → Train LoRA as node "train"."""
    quiet = {"steps": steps, "precision": "fp32", "save_every_epochs": 0, "sample_every_epochs": 0} | settings
    return {
        "base": use("LoraFurnaceDemoBase", batch_size=2),
        "lora": use("LoraFurnaceLora", rank=4),
        "training": use("LoraFurnaceTraining", **quiet),
        "train": use(
            "LoraFurnaceTrainLora", base=["base", 0], dataset=["base", 1], lora=["lora", 0], training=["training", 0], lora_name=name
        ),
    }


def lora_files(comfy: Comfy, name: str) -> list[str]:
    return sorted(path.name for path in (comfy.base / "models/loras").glob(f"{name}*"))


def test_pack_is_loaded(comfy: Comfy) -> None:
    assert comfy.import_failures() == []
    nodes = {name for name in comfy.object_info() if name.startswith("LoraFurnace")}
    assert nodes == set(json.loads((PACK_ROOT / "locales/zh/nodeDefs.json").read_text(encoding="utf-8")))
    assert comfy.get("/i18n")["zh"]["nodeDefs"]["LoraFurnaceTrainLora"]["display_name"].startswith("训练 LoRA")
    names = {path.stem for path in (PACK_ROOT / "example_workflows").glob("*.json")}
    assert set(comfy.get("/workflow_templates")["lora-furnace"]) == names


def test_help_pages_are_served(comfy: Comfy) -> None:
    for page in ("LoraFurnaceTrainLora.md", "LoraFurnaceTrainLora/zh.md"):
        assert b"LoRA" in comfy._request(f"/extensions/lora-furnace/docs/{page}")


def test_progress_native_nodes_and_no_second_training(comfy: Comfy) -> None:
    saver = next(name for name in ("SaveLoRA", "SaveLoRANode") if name in comfy.object_info())  # its name today, and in 2025
    prompt = demo("events", 4, sample_prompts="zibu", sample_every_steps=2, sample_steps=2) | {
        "graph": use("LossGraphNode", loss=["train", 3], filename_prefix="loss"),
        "save": use(saver, lora=["train", 2], prefix="loras/native"),
        "samples": use("PreviewImage", images=["train", 4]),
        "curve": use("PreviewImage", images=["train", 5]),
    }
    with comfy.listen() as (client, events):
        entry = comfy.wait(comfy.queue(prompt, client))
        assert outcome(entry) == "success"
        texts = [event.data["text"] for event in events.of("text") if event.data["node"] == "train"]
        steps = [event.data["value"] for event in events.of("progress") if event.data["max"] == 4]
        previews = events.of("preview")
    assert any(text.startswith("step 4/4, epoch 1, loss ") for text in texts)
    assert steps[0] == 1 and steps[-1] == 4
    assert len(previews) >= 2 and previews[-1].image.size == (512, 512)  # the server enlarges it
    assert all(entry["outputs"][node]["images"] for node in ("train", "graph", "samples", "curve"))
    assert comfy.view(entry["outputs"]["train"]["images"][0]).size == (64, 64)
    assert list((comfy.base / "output/loras").glob("native*.safetensors"))

    prompt["lora"]["inputs"]["rank"] = 5  # ComfyUI's own cache is passed by; the runs remember
    comfy.run(prompt)
    prompt["lora"]["inputs"]["rank"] = 4
    with comfy.listen() as (client, events):
        assert outcome(comfy.wait(comfy.queue(prompt, client))) == "success"
        assert any("already trained" in event.data["text"] for event in events.of("text"))
    assert lora_files(comfy, "events") == ["events.safetensors", "events_2.safetensors"]


def test_cancel_keeps_the_work(comfy: Comfy) -> None:
    prompt = demo("cancelled", 30)
    with comfy.listen() as (client, events):
        prompt_id = comfy.queue(prompt, client)
        deadline = time.monotonic() + 120
        while not any(event.data["text"].startswith("step ") for event in events.of("text")):
            assert time.monotonic() < deadline, comfy.log_tail()
            time.sleep(0.02)
        comfy.interrupt()
        entry = comfy.wait(prompt_id)
        last = [event.data["text"] for event in events.of("text")][-1]
    assert outcome(entry) == "interrupted"
    assert last.startswith("stopped after ")
    (partial,) = lora_files(comfy, "cancelled")
    steps = int(partial.removeprefix("cancelled-step").removesuffix(".safetensors"))
    assert 1 <= steps < 30
    assert (comfy.base / "output/lora_furnace/cancelled/state.pt").is_file()

    comfy.run({"1": use("EmptyImage", width=8, height=8, batch_size=1, color=0), "2": use("PreviewImage", images=["1", 0])})
    with comfy.listen() as (client, events):
        assert outcome(comfy.wait(comfy.queue(prompt, client))) == "success"
        assert any(f"resuming after step {steps}" in event.data["text"] for event in events.of("text"))
    assert lora_files(comfy, "cancelled") == [partial, "cancelled.safetensors"]


def test_trainers_error_is_shown_on_the_node(comfy: Comfy) -> None:
    entry = comfy.wait(comfy.queue(demo("a/b", 2)))
    (error,) = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    assert error["node_id"] == "train"
    assert "lora_name" in error["exception_message"] and "cannot be a file name" in error["exception_message"]


def native(strength: float, prompt: str) -> Json:
    """Load LoRA → KSampler → VAE Decode."""
    lora = use("LoraLoader", model=["ckpt", 0], clip=["ckpt", 1], lora_name=["train", 0], strength_model=strength, strength_clip=strength)
    return {f"lora {strength}": lora} | drawn(str(strength), prompt, [f"lora {strength}", 0], [f"lora {strength}", 1])


def trained(comfy: Comfy, checkpoint: str, name: str, **lora: Any) -> Json:
    """Two steps on the checkpoint as node "train", and the checkpoint and an empty latent for drawing."""
    from PIL import Image

    folder = comfy.base / "input/two"
    folder.mkdir(exist_ok=True)
    for number in range(2):
        Image.new("RGB", (SIZE, SIZE), (90 * number, 40, 200)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a picture")
    return model_and_latent(checkpoint) | {
        "base": use("LoraFurnaceBaseModel", checkpoint=checkpoint),
        "data": use("LoraFurnaceDataset", folder="input/two", width=SIZE, height=SIZE),
        "lora": use("LoraFurnaceLora", rank=2, **lora),
        "training": use("LoraFurnaceTraining", steps=2, lr=0.05, precision="bf16", save_every_epochs=0, schedule="constant", warmup=0),
        "train": use(
            "LoraFurnaceTrainLora", base=["base", 0], dataset=["data", 0], lora=["lora", 0], training=["training", 0], lora_name=name
        ),
    }


def test_lora_from_the_socket_draws_as_the_file_does(comfy: Comfy, checkpoint: str) -> None:
    """Load LoRA Model takes the LORA_MODEL output; it applies the image part only, so only that is trained."""
    if "LoraModelLoader" not in comfy.object_info():
        pytest.skip("this ComfyUI has no Load LoRA Model")
    prompt = trained(comfy, checkpoint, "socket", train_text_encoder=False)
    prompt["from socket"] = use("LoraModelLoader", model=["ckpt", 0], lora=["train", 2], strength_model=1.0, bypass=False)
    prompt["from file"] = use("LoraLoaderModelOnly", model=["ckpt", 0], lora_name=["train", 0], strength_model=1.0)
    for name, model in (("from socket", "from socket"), ("from file", "from file"), ("plain", "ckpt")):
        prompt |= drawn(name, "a house", [model, 0], ["ckpt", 1])
    outputs = comfy.run(prompt, timeout=900)
    socket, file, plain = (pictures(comfy, outputs, f"native {name}")[0] for name in ("from socket", "from file", "plain"))
    assert np.array_equal(socket, file)
    assert not np.array_equal(socket, plain)


def test_strength_test_equals_native_nodes(comfy: Comfy, checkpoint: str) -> None:
    prompt = trained(comfy, checkpoint, "pixels") | {
        "test": use(
            "LoraFurnaceStrengthTest",
            model=["ckpt", 0],
            clip=["ckpt", 1],
            vae=["ckpt", 2],
            loras=["train", 1],
            strengths="0, 0.5, 1",
            prompts="a house",
            negative="blurry",
            width=SIZE,
            height=SIZE,
            seed=7,
            steps=2,
            cfg=5.0,
            sampler_name="euler",
            scheduler="normal",
        ),
        "cells": use("PreviewImage", images=["test", 1]),
    }
    strengths = (0.0, 0.5, 1.0)
    for strength in strengths:
        prompt |= native(strength, "a house")
    outputs = comfy.run(prompt, timeout=900)
    assert "lora key not loaded" not in comfy.log()
    cells = pictures(comfy, outputs, "cells")
    assert len(cells) == 3
    for cell, strength in zip(cells, strengths, strict=True):
        assert np.array_equal(cell, pictures(comfy, outputs, f"native {strength}")[0]), f"strength {strength}"
    assert not np.array_equal(cells[0], cells[2]), "the LoRA must show"


def test_a_grid_equals_native_nodes_and_is_not_drawn_again(comfy: Comfy, checkpoint: str) -> None:
    """Strengths of image part and text encoder, over a second LoRA that is in every picture."""
    size = {"width": SIZE, "height": SIZE, "seed": 7, "steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal"}
    files = trained(comfy, checkpoint, "grid")
    stack = comfy.base / "models/loras/grid_second.safetensors"
    comfy.run(files | {"plain": use("PreviewAny", source=["train", 0])}, timeout=900)
    stack.write_bytes((comfy.base / "models/loras/grid.safetensors").read_bytes())
    prompt = {name: files[name] for name in ("ckpt", "latent")} | {
        "grid": use(
            "LoraFurnaceGrid", model=["ckpt", 0], clip=["ckpt", 1], vae=["ckpt", 2], loras="grid.safetensors", prompts="a house",
            negative="blurry", x_axis="strength", x_values="0, 1", y_axis="strength_clip", y_values="0.5", z_axis="nothing", z_values="",
            stack="grid_second:0.4", grid_name="native", **size,
        ),
        "cells": use("PreviewImage", images=["grid", 1]),
    }  # fmt: skip
    for strength in (0.0, 1.0):
        name = str(strength)
        links = {"model": ["ckpt", 0], "clip": ["ckpt", 1]}
        prompt[f"first {name}"] = use("LoraLoader", lora_name="grid.safetensors", strength_model=strength, strength_clip=0.5, **links)
        links = {"model": [f"first {name}", 0], "clip": [f"first {name}", 1]}
        prompt[f"second {name}"] = use("LoraLoader", lora_name=stack.name, strength_model=0.4, strength_clip=0.4, **links)
        prompt |= drawn(name, "a house", [f"second {name}", 0], [f"second {name}", 1])
    outputs = comfy.run(prompt, timeout=900)
    cells = pictures(comfy, outputs, "cells")
    assert len(cells) == 2 and not np.array_equal(*cells)
    for cell, strength in zip(cells, ("0.0", "1.0"), strict=True):
        assert np.array_equal(cell, pictures(comfy, outputs, f"native {strength}")[0]), strength
    stored = sorted((comfy.base / "output/lora_furnace/grids/native/cells").glob("*.png"))
    assert len(stored) == 2
    times = [path.stat().st_mtime_ns for path in stored]
    again = {name: prompt[name] for name in ("ckpt", "grid", "cells")}
    again["grid"]["inputs"]["loras"] = "grid"  # another text, the same pictures: ComfyUI runs the node again
    with comfy.listen() as (client, events):
        assert outcome(comfy.wait(comfy.queue(again, client), 900)) == "success"
        assert any("2 of 2 pictures are already drawn" in event.data["text"] for event in events.of("text"))
    assert [path.stat().st_mtime_ns for path in stored] == times
