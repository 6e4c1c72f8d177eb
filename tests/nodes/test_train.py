"""Train LoRA beside a fake ComfyUI, on a tiny random model."""

from __future__ import annotations

import pytest
import torch
from conftest import Pack
from fake_comfy import InterruptProcessingException


def inputs(pack: Pack, name: str = "cat", steps: int = 3, **training):
    dataset = pack.call("Dataset", folder="input/cat", width=64, height=64)[0]
    settings = {"precision": "fp32", "epochs": 10, "steps": steps, "save_every_epochs": 0, "sample_every_epochs": 0} | training
    method = pack.call("Lora", rank=2)[0]
    return {
        "base": pack.base(),
        "dataset": dataset,
        "lora": method,
        "training": pack.call("Training", **settings)[0],
        "lora_name": name,
        "node_id": "7",
    }


def test_train(pack: Pack) -> None:
    with torch.inference_mode():
        answer = pack.call("TrainLora", **inputs(pack))
    name, names, tensors, losses, samples, curve = answer["result"]
    assert name == names == "cat.safetensors"
    assert (pack.comfy.base / "models/loras/cat.safetensors").is_file()
    assert any(key.endswith("lora_up.weight") for key in tensors)
    assert len(losses["loss"]) == 3
    assert curve.shape[0] == 1 and torch.equal(samples[0], curve)
