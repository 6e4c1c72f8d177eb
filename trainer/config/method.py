"""The `method` section: what is trained."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from .blocks import BlockSection
from .section import Float, Int, Section, option


def _split(value: Any) -> Any:
    """Text as in a widget: one pattern a line, or several between commas or blanks; keys have neither."""
    return tuple(part for part in re.split(r"[,\s]+", value) if part) if isinstance(value, str) else value


Patterns = Annotated[tuple[str, ...], BeforeValidator(_split)]


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
    conv_rank: Int | None = option(
        None, "Also train the convolutions (LoCon), those larger than 1x1 with this rank; not set, they stay as they are.", ge=1, le=1024
    )
    conv_alpha: Float | None = option(
        None, "Strength scale of `conv_rank`; not set, convolutions are as strong as the rest.", gt=0, le=4096, step=0.5
    )
    dora: bool = option(False, "DoRA: train the length of each weight column beside its direction; slower, closer to full training.")
    tucker: bool = option(False, "Split adapters of convolutions further (Tucker): smaller files.", advanced=True)
    lokr_factor: Int = option(
        -1, "LoKr: size of the small matrix; a smaller one makes a larger file, -1 the smallest.", ge=-1, le=1024, advanced=True
    )
    lokr_decompose_both: bool = option(False, "LoKr: split the small matrix by rank too.", advanced=True)
    dylora_unit: Int = option(4, "DyLoRA: every multiple of this is a rank that works on its own.", ge=1, le=1024, advanced=True)
    include: Patterns = option(
        (), "Train only layers whose saved key has one of these parts, or fits one with * and ?; such as attn2.", advanced=True
    )
    exclude: Patterns = option((), "Leave out layers by the same rule; it counts more than `include`.", advanced=True)
    dropout: Float = option(
        0.0,
        "Share of numbers dropped at each use: as in sd-scripts those between a LoRA's two matrices; of LoHa and LoKr the inputs.",
        ge=0,
        le=0.99,
        step=0.05,
        advanced=True,
    )
    rank_dropout: Float = option(0.0, "Share of the ranks that is dropped for each picture.", ge=0, le=0.99, step=0.05, advanced=True)
    module_dropout: Float = option(0.0, "Share of the layers that is left out for each picture.", ge=0, le=0.99, step=0.05, advanced=True)
    max_norm: Float | None = option(
        None, "Longest change of a layer (Frobenius norm): after each step longer ones are scaled down to it.", gt=0, le=1000, advanced=True
    )
    continue_from: str | None = option(None, "A LoRA file to start from; its ranks and alphas are kept.", advanced=True)
    stop_text_encoder: Float | None = option(
        None, "The text encoder learns no more after: below 1 a part of all steps, from 1 on a number of steps.", gt=0, advanced=True
    )


Method = AdapterSection  # a union discriminated by `kind` once there is a second method
