"""The `memory` section."""

from __future__ import annotations

from typing import Literal

from .section import Float, Int, Section, option


class MemorySection(Section):
    """Trades speed, or the last bit of precision, for memory."""

    weights: Literal["full", "fp8", "int8", "nf4"] = option(
        "full",
        "How the frozen networks' weights are kept: in train.precision, or in 8 bits (fp8, int8) or 4 bits (nf4), made whole where used.",
    )
    offload: Float = option(
        0.0,
        "Share of the image network's weights that stays in the computer's memory and comes to the GPU when it is needed.",
        ge=0,
        le=1,
        step=0.05,
    )
    checkpoint_every: Int = option(
        1, "With train.gradient_checkpointing: only every so many of the image network's blocks; 1 is all.", ge=1, le=100
    )
    micro_batch: Int | None = option(
        None, "The most pictures that go through the model at a time; larger batches go in portions, with the same result.", ge=1
    )
