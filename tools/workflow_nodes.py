"""How the nodes of an example workflow are written down, and the model file that several of them name."""

from __future__ import annotations

from typing import Any

SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
SD15_URL = f"https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{SD15}"


def node(id: int, type: str, left: int, size: tuple[int, int], widgets: dict | None = None, links: dict | None = None, **more: Any):
    """Nodes with the same `left` stand below each other. `links` maps an input to (node id, output name)."""
    return {"id": id, "type": type, "left": left, "size": size, "widgets": widgets or {}, "links": links or {}, **more}
