"""What the browser needs to show block weights as bars: names, lists and curves of each model, from the trainer's tables.

It travels as an extra option of one text input; web/block_bars.js reads it. Without a browser the text alone counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..trainer.block_weights.rules import RANDOM
from ..trainer.evaluate.block_chart import colour_of
from ..trainer.families.block_vectors import CURVES, part_values
from ..trainer.families.blocks import BLOCK_TABLES, STABLE_DIFFUSION, BlockTable
from .widgets import Input

OPTION = "block_bars"


def part_bars(inputs: dict[str, Input], parts: tuple[str, ...], whole: str) -> dict[str, Input]:
    """Bars of three inputs that are named like the parts of a network; a text in the input `whole` counts instead of them."""
    models = [_model(table) for table in _tables() if table.parts]
    return _with_bars(inputs, parts[0], models=models, parts=list(parts), whole=whole, ones="")


def vector_bars(
    inputs: dict[str, Input], whole: str, vectors: Mapping[str, str], preset: tuple[str, str] | None = None
) -> dict[str, Input]:
    """Bars of one input for all blocks, in which the names of `vectors` stand for these.

    `preset` is another input that counts instead, and the value with which it does not.
    """
    models = [_model(table) for table in _tables()]
    chosen = dict(zip(("input", "own"), preset, strict=True)) if preset else None
    return _with_bars(
        inputs, whole, models=models, parts=[], whole=whole, ones="1", words=list(RANDOM), vectors=dict(vectors), preset=chosen
    )


def _with_bars(inputs: dict[str, Input], first: str, **bars: Any) -> dict[str, Input]:
    """The inputs of a node with the bars' data on the input `first`."""
    kind, options = inputs[first]
    return inputs | {first: (kind, options | {OPTION: {"vectors": {}, "words": [], "preset": None} | bars})}


def _tables() -> list[BlockTable]:
    """The first is shown where a text fits several."""
    return [STABLE_DIFFUSION, *(table for table in BLOCK_TABLES if table is not STABLE_DIFFUSION)]


def _model(table: BlockTable) -> dict[str, Any]:
    deepest = max(table.levels.values(), default=0)
    parts = {block: part for part, names in table.parts.items() for block in names}
    return {
        "title": table.title,
        "text": list(table.text),
        "blocks": [
            {"name": name, "part": parts.get(name, ""), "level": table.levels.get(name, deepest / 2), "colour": colour_of(table, name)}
            for name in table.names
        ],
        "layouts": [[list(table.expand(entry)) for entry in layout] for layout in table.layouts],
        "curves": {
            part: {curve: [round(value, 3) for value in part_values(curve, table, part, part).values()] for curve in CURVES}
            for part in table.parts
            if part != "mid"
        },
    }
