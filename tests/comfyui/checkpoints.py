"""A checkpoint and a LoRA with the names and shapes of Stable Diffusion 1.5 and random weights."""

from __future__ import annotations

import json
import os
from pathlib import Path


def random_checkpoint(folder: Path) -> Path:
    """$SD15_RANDOM_CHECKPOINT, or a file that is made once in `folder` (2.1 GB, half a minute)."""
    if given := os.environ.get("SD15_RANDOM_CHECKPOINT"):
        return Path(given)
    from trainer.bench_files import random_checkpoint as make

    return make(folder / "random" / "sd15_random.safetensors", "sd15")


def random_lora(path: Path) -> Path:
    """Every layer that a plain LoRA has, at rank 4 (5 MB)."""
    import torch
    from safetensors.torch import save_file

    generator, tensors = torch.Generator().manual_seed(1), {}
    shapes = Path(__file__).resolve().parents[1] / "golden/kohya_sd15.json"
    for key, down, up in json.loads(shapes.read_text(encoding="utf-8")):
        for name, shape in (("down", down), ("up", up)):
            tensors[f"{key}.lora_{name}.weight"] = (torch.randn(shape, generator=generator) * 0.02).half()
        tensors[f"{key}.alpha"] = torch.tensor(4.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
