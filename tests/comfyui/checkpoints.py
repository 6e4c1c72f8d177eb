"""A checkpoint with the names and shapes of Stable Diffusion 1.5 and random weights."""

from __future__ import annotations

import os
from pathlib import Path


def random_checkpoint(folder: Path) -> Path:
    """$SD15_RANDOM_CHECKPOINT, or a file that is made once in `folder` (2.1 GB, half a minute)."""
    if given := os.environ.get("SD15_RANDOM_CHECKPOINT"):
        return Path(given)
    from trainer.bench_files import random_checkpoint as make

    return make(folder / "random" / "sd15_random.safetensors", "sd15")
