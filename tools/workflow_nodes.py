"""How the nodes of an example workflow are written down, and the model file that several of them name."""

from __future__ import annotations

from typing import Any

SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
SD15_URL = f"https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{SD15}"


def node(id: int, type: str, left: int, size: tuple[int, int], widgets: dict | None = None, links: dict | None = None, **more: Any):
    """Nodes with the same `left` stand below each other. `links` maps an input to (node id, output name)."""
    return {"id": id, "type": type, "left": left, "size": size, "widgets": widgets or {}, "links": links or {}, **more}


def demo_job(name: str, height: int, **settings: Any) -> list[dict[str, Any]]:
    """Nodes 2 to 5: what `python -m trainer demo` trains, with more training settings; the last is `height` pixels high."""
    rates = {"lr": 0.0015, "text_encoder_lr": 0.0005}
    links = {"base": (2, "base"), "dataset": (2, "dataset"), "held_out": (2, "held_out"), "lora": (3, "lora"), "training": (4, "training")}
    return [
        node(2, "LoraFurnaceDemoBase", 460, (340, 110), {"batch_size": 8}),
        node(3, "LoraFurnaceLora", 460, (340, 160), {"rank": 32, "alpha": 32}),
        node(4, "LoraFurnaceTraining", 460, (340, 640), {"epochs": 15, "precision": "fp32", **rates, "save_every_epochs": 3, **settings}),
        node(5, "LoraFurnaceTrainLora", 850, (380, height), {"lora_name": name}, links),
    ]
