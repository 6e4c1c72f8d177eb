"""A number per block as bars over the shape of the network: down the input blocks, through the middle, up the output blocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from .fonts import plot_font

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..families.blocks import BlockTable

_COLOURS = {"text": "#8a8f98", "down": "#3b7dd8", "mid": "#8e5bd0", "up": "#e0813a", "": "#3f9d6e"}
_ABSENT = "#e4e4e4"
_WIDTH = 0.36  # inches per block


def draw_blocks(
    table: BlockTable, values: Mapping[str, float], *, present: Collection[str] | None = None, title: str = "", label: str = "weight"
) -> Image:
    """A PIL picture. `values` has a number for blocks by name; `present` are those that have layers, default all.

    The other blocks are drawn pale: whatever their number, it does nothing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    names = table.names
    figure = Figure(figsize=(max(7.0, _WIDTH * len(names) + 1.2), 5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    bars, shape = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    places = _places(table)
    colours = {name: colour_of(table, name) if present is None or name in present else _ABSENT for name in names}
    _draw_bars(bars, places, values, colours, label)
    _draw_shape(shape, table, places, values, colours)
    if title:
        bars.set_title(title, fontproperties=plot_font(title, 12), parse_math=False, wrap=True)
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")


def _places(table: BlockTable) -> dict[str, float]:
    """Where each bar stands; text encoders are set apart."""
    return {name: number + (1.0 if name in table.blocks else 0.0) for number, name in enumerate(table.names)}


def colour_of(table: BlockTable, name: str) -> str:
    if name in table.text:
        return _COLOURS["text"]
    return _COLOURS[next((part for part, names in table.parts.items() if name in names), "")]


def _draw_bars(axes: Any, places: Mapping[str, float], values: Mapping[str, float], colours: Mapping[str, str], label: str) -> None:
    drawn = [name for name in places if name in values]
    numbers = [values[name] for name in drawn]
    found = axes.bar([places[name] for name in drawn], numbers, color=[colours[name] for name in drawn], width=0.8)
    axes.bar_label(found, [f"{number:.3g}" if number else "" for number in numbers], fontsize=7, rotation=90, padding=3)
    axes.axhline(0, color="0.3", linewidth=0.8)
    low, high = min([0.0, *numbers]), max([0.0, *numbers])
    room = (high - low or 1.0) * 0.22  # for the numbers at the ends of the bars
    axes.set_ylim(low - (room if low < 0 else 0), high + room)
    axes.set_ylabel(label)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _draw_shape(axes: Any, table: BlockTable, places: Mapping[str, float], values: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """One box per block at the depth of its resolution, the fuller the larger its number."""
    from matplotlib.patches import FancyBboxPatch

    largest = max((abs(values.get(name, 0.0)) for name in places), default=0.0) or 1.0
    deepest = max(table.levels.values(), default=0)
    for name, place in places.items():
        depth = table.levels.get(name, deepest / 2)
        strength = abs(values.get(name, 0.0)) / largest
        style = "round,pad=0,rounding_size=0.12"
        box = FancyBboxPatch((place - 0.4, -depth - 0.36), 0.8, 0.72, boxstyle=style, facecolor="white", edgecolor=colours[name])
        axes.add_patch(box)
        fill = FancyBboxPatch((place - 0.4, -depth - 0.36), 0.8, 0.72, boxstyle=style, facecolor=colours[name], alpha=strength, linewidth=0)
        axes.add_patch(fill)
        axes.text(place, -depth, name, rotation=90, ha="center", va="center", fontsize=5.8)
    axes.set_xlim(-0.7, max(places.values()) + 0.7)
    axes.set_ylim(-deepest - 0.6, 0.6)
    axes.set_axis_off()
