"""The `method` section: what is trained."""

from __future__ import annotations

from typing import Literal

from .blocks import BlockSection
from .section import Float, Int, Section, option


class AdapterSection(Section):
    """Train a small adapter (LoRA) beside the frozen model."""

    kind: Literal["adapter"] = option("adapter", "Training method.")
    adapter: str = option("lora", "Adapter algorithm.")
    rank: Int = option(16, "Size of the adapter: 16 to 32 for anime, up to 128 for hard subjects.", ge=1, le=1024)
    alpha: Float = option(
        8.0, "Strength scale; alpha/rank multiplies the adapter. A quarter to half of rank is usual.", gt=0, le=4096, step=0.5
    )
    train_unet: bool = option(True, "Train the image part of the model.")
    train_text_encoder: bool = option(True, "Train the text encoder (SDXL: both) too.")
    blocks: BlockSection = BlockSection()


Method = AdapterSection  # a union discriminated by `kind` once there is a second method
