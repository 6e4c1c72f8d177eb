"""Between PIL images and ComfyUI's IMAGE tensors, float32 (B, H, W, 3) in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..trainer.evaluate.curves import draw_loss_map


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """(1, H, W, 3)."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0)[None]


def from_tensor(picture: Any) -> Image.Image:
    """A PIL image of one (H, W, 3), with the rounding of ComfyUI's Save Image."""
    return Image.fromarray(np.clip(255.0 * picture.cpu().numpy(), 0, 255).astype(np.uint8))


def open_picture(path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return to_tensor(picture)


def draw_curve(losses: Mapping[str, Any]) -> Image.Image:
    """A LOSS_MAP as a picture."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "loss.png"
        draw_loss_map(path, losses)
        with Image.open(path) as picture:
            return picture.convert("RGB")
