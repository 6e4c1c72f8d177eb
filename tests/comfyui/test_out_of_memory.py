"""A training in ComfyUI that runs out of memory: it says so on its node, holds nothing any more, and other graphs run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import random_checkpoint
from conftest import PACK_NAME, PACK_ROOT, running
from graphs import SIZE, drawn, pictures, use
from harness import Comfy, outcome, running_comfy
from test_nodes import demo, lora_files

CHECKPOINT = "plain.safetensors"


@pytest.fixture(scope="module")
def comfy(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    """A ComfyUI of its own, in which memory can be made short."""
    packs = {PACK_NAME: PACK_ROOT, "short_of_memory.py": Path(__file__).with_name("short_of_memory.py")}
    with running_comfy(comfyui_path, tmp_path_factory.mktemp("short"), packs) as started:
        running.append(started)
        yield started
        running.remove(started)


def test_a_plain_graph_runs_right_after(comfy: Comfy) -> None:
    (comfy.base / "models/checkpoints" / CHECKPOINT).symlink_to(random_checkpoint(comfy.base))
    drawing = {
        "ckpt": use("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "latent": use("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=1),
        **drawn("plain", "a house", ["ckpt", 0], ["ckpt", 1]),
    }
    before = pictures(comfy, comfy.run(drawing, timeout=900), "native plain")[0]

    training = demo("short", 6)
    training["short"] = use("ShortOfMemory", training=["training", 0], steps=2)
    training["train"]["inputs"]["training"] = ["short", 0]
    entry = comfy.wait(comfy.queue(training))
    (error,) = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    said = error["exception_message"]
    assert error["node_id"] == "train" and "OutOfMemory" in error["exception_type"]
    assert "out of memory at step 3 (CUDA out of memory. Tried to allocate 2.00 GiB.)" in said
    assert "2 steps are saved" in said and "What needs less: " in said
    measures = ("cached memory was given back", "on with gradient checkpointing", "on with 1 of a batch's pictures at a time")
    assert [measure in comfy.log() for measure in measures] == [True] * 3
    assert len(lora_files(comfy, "short")) == 1

    left = json.loads(comfy.run({"left": use("WhatIsLeft")})["left"]["left"][0])
    assert left == {"passes": 6, "networks": 0, "objects": [], "models of ComfyUI": 0}

    entry = comfy.wait(comfy.queue(drawing), timeout=900)
    assert outcome(entry) == "success", comfy.log_tail()
    cached = [data["nodes"] for kind, data in entry["status"]["messages"] if kind == "execution_cached"]
    assert "sampler plain" not in cached[0]
    assert np.array_equal(pictures(comfy, entry["outputs"], "native plain")[0], before)

    training["train"]["inputs"]["training"] = ["training", 0]  # there is room again: the same job goes on
    del training["short"]
    with comfy.listen() as (client, events):
        assert outcome(comfy.wait(comfy.queue(training, client))) == "success"
        assert any("resuming after step 2" in event.data["text"] for event in events.of("text"))
