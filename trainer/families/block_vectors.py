"""Texts such as `cosine+.25`, `1,0,0,1,…` or `IN04-OUT05=0.5` to one number per block; always by name, never by position alone.

Curves, their offsets and the lengths are those of kohya's sd-scripts and of the block-weight loaders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from ..errors import ConfigError
from .blocks import BlockTable

CURVES: Mapping[str, Callable[[float], float]] = {  # of a place between 0, the first block, and 1, the last
    "cosine": lambda place: math.sin(math.pi / 2 * (1 - place)),  # exactly 0 at the end, so that the last block is left out
    "sine": lambda place: math.sin(math.pi / 2 * place),
    "linear": lambda place: place,
    "reverse_linear": lambda place: 1 - place,
    "zeros": lambda _place: 0.0,
}
_CURVE = re.compile(rf"({'|'.join(CURVES)})\s*([+-].*)?", re.IGNORECASE)

Number = Callable[[str, str], float]  # the text of an item and the name of its block, to a number; ValueError otherwise


def plain_number(text: str, _block: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def part_values(text: str, table: BlockTable, part: str, where: str) -> dict[str, float]:
    """A number for each block of a part ("down", "mid" or "up") that the text gives one. ConfigError names `where`."""
    names = table.parts.get(part, ())
    if not names:
        raise ConfigError(f"{where}: the blocks of {table.title} have no {part} part; use weights. {_lengths(table.layouts)}")
    found = _CURVE.fullmatch(text.strip())
    if found and len(names) > 1 and part != "mid":
        base = _item(found[2].replace(" ", ""), names[0], where, plain_number) if found[2] else 0.0
        curve = CURVES[found[1].lower()]
        return {name: curve(number / (len(names) - 1)) + base for number, name in enumerate(names)}
    if found:
        raise ConfigError(f"{where}: {text!r} is a curve, which is for down and up; give mid a number, or {_layout(names)}")
    if re.fullmatch(r"[a-z_]+\s*([+-].*)?", text.strip(), re.IGNORECASE):
        raise ConfigError(f"{where}: {text!r} is unknown; curves: {', '.join(CURVES)}, with an offset such as cosine+.25")
    return _values(text, table, (names,), names, where, plain_number)


def vector_values(
    text: str, table: BlockTable, where: str, *, text_encoders: bool = True, number: Number = plain_number
) -> dict[str, float]:
    """A number for each block and text encoder that the text gives one.

    One number is for all of them. A list has one of the table's lengths; blocks that this length does not name get 0.
    """
    layouts = [layout for layout in table.layouts if text_encoders or not set(layout) & set(table.text)]
    names = table.names if text_encoders else tuple(table.blocks)
    if _CURVE.fullmatch(text.strip()):
        raise ConfigError(f"{where}: {text!r} is a curve, which is for down and up")
    values = _values(text, table, layouts, names, where, number)
    return values if "=" in text else dict.fromkeys(table.blocks, 0.0) | values


def as_text(values: Mapping[str, float], table: BlockTable) -> str:
    """`BASE=1, IN00-IN03=0.5`: a text that gives these numbers again. Neighbours with the same number are a range."""
    runs: list[tuple[list[str], float]] = []
    names = table.names
    for place, name in enumerate(names):
        if name not in values:
            continue
        if runs and place and runs[-1][0][-1] == names[place - 1] and runs[-1][1] == values[name]:
            runs[-1][0].append(name)
        else:
            runs.append(([name], values[name]))
    return ", ".join(f"{run[0] if len(run) == 1 else f'{run[0]}-{run[-1]}'}={value:g}" for run, value in runs)


def _values(
    text: str, table: BlockTable, layouts: Sequence[Sequence[str]], names: Sequence[str], where: str, number: Number
) -> dict[str, float]:
    if "=" in text:
        return _assignments(text, table, names, where, number)
    items = [item.strip() for item in text.split(",")]
    if len(items) == 1:
        return {name: _item(items[0], name, where, number) for name in names}
    layout = next((layout for layout in layouts if len(layout) == len(items)), None)
    if layout is None:
        raise ConfigError(f"{where}: {len(items)} values do not fit {table.title}. {_lengths(layouts)}")
    pairs = zip(layout, items, strict=True)
    return {name: _item(item or "0", name, where, number) for entry, item in pairs for name in table.expand(entry)}


def _assignments(text: str, table: BlockTable, allowed: Sequence[str], where: str, number: Number) -> dict[str, float]:
    """`IN04-IN08=0.5, M00=0`: a later one wins."""
    values: dict[str, float] = {}
    for item in filter(None, re.split(r"[,\s]+", re.sub(r"\s*([=-])\s*", r"\1", text))):
        entry, equals, value = item.partition("=")
        try:
            names = table.expand(entry)
        except KeyError:
            names = ()
        if not (equals and names and set(names) <= set(allowed)):
            raise ConfigError(f"{where}: {item!r} is not written as block=number or first-last=number; blocks: {', '.join(allowed)}")
        values |= {name: _item(value, name, where, number) for name in names}
    return values


def _item(text: str, block: str, where: str, number: Number) -> float:
    try:
        return number(text, block)
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is not a number (for block {block})") from None


def _lengths(layouts: Sequence[Sequence[str]]) -> str:
    return "Expected one number, or " + "; or ".join(_layout(layout) for layout in sorted(layouts, key=len))


def _layout(names: Sequence[str]) -> str:
    return f"{len(names)} values: {', '.join(names)}" if len(names) > 1 else f"1 value: {names[0]}"
