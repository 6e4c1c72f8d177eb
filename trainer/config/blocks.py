"""The `method.blocks` section: what each block of the image part trains with."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from .section import Float, Section, option


def _text(value: Any) -> Any:
    """YAML's numbers and lists as the text that widgets have: [1, 0.5] is "1, 0.5"."""
    if isinstance(value, (list, tuple)) and all(_is_number(item) for item in value):
        return ", ".join(f"{item}" for item in value)
    return "" if value is None else str(value) if _is_number(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


Values = Annotated[str, BeforeValidator(_text)]

_ONE_EACH = "a number, a list with one per block, or block=number items such as IN04-IN05=0.5"
_DOWN = (
    f"Learning-rate weights of the input blocks: {_ONE_EACH}, or a curve (cosine, sine, linear, reverse_linear, zeros) with an "
    "offset: cosine+.25. A block with weight 0 is left out."
)
_WEIGHTS = (
    "Learning-rate weights of all blocks in one list, in place of down, mid and up: 16, 17, 25 or 26 values for SD 1 and 2, "
    "12, 20 or 23 for SDXL, or block=number items. BASE is the text encoder."
)


class BlockSection(Section):
    """Learning rates, ranks and alphas that differ from block to block. Left empty, all blocks are alike."""

    down: Values = option("", _DOWN)
    mid: Values = option("", f"Learning-rate weight of the middle block: {_ONE_EACH}.")
    up: Values = option("", "Learning-rate weights of the output blocks, written like `down`.")
    weights: Values = option("", _WEIGHTS)
    zero_threshold: Float = option(0.0, "Blocks whose weight is not above it are left out: not trained, not saved.", ge=0, le=10, step=0.05)
    ranks: Values = option("", "Ranks by block, in place of `rank`: 25 values (SDXL 23), one number, or block=number items; 0 leaves out.")
    alphas: Values = option("", "Alphas by block, in place of `alpha`, written like `ranks`.", advanced=True)
    conv_ranks: Values = option("", "Ranks of 3x3 convolutions by block, written like `ranks`.", advanced=True)
    conv_alphas: Values = option("", "Alphas of 3x3 convolutions by block, written like `ranks`.", advanced=True)
