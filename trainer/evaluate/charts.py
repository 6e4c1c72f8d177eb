"""Figures of a grid as pictures: a heat map below a page, curves over strength and over files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import Axis
from .figures import FIGURES, Table
from .fonts import plot_font

if TYPE_CHECKING:
    from PIL.Image import Image

_PANEL = 300  # pixels that one heat map is wide, at least
_DPI = 110


def draw_heat_maps(table: Table, page: int, width: int) -> Image | None:
    """One map per figure, side by side and `width` pixels wide in all; None where nothing was measured."""
    names = [name for name in table.names if np.isfinite(table.array(name, page)).any()]
    if not names:
        return None
    columns = max(1, min(len(names), width // _PANEL))
    rows = -(-len(names) // columns)
    figure = new_figure(width, rows * (70 + 34 * max(3, table.plan.shape[1])))
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for panel, name in zip(panels, names, strict=False):
        _heat_map(panel, table.array(name, page), table, name)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    return to_picture(figure)


def draw_curves(table: Table) -> Image | None:
    """Each figure over each axis of numbers or files, one line per value of the other one; means over all pages."""
    plan = table.plan
    sides = [(axis, other, flip) for axis, other, flip in ((plan.x, plan.y, False), (plan.y, plan.x, True)) if axis and _is_ordered(axis)]
    names = table.names
    if not sides or not names:
        return None
    figure = new_figure(460 * len(sides), 290 * len(names))
    panels = figure.subplots(len(names), len(sides), squeeze=False)
    for row, name in zip(panels, names, strict=True):
        for panel, (axis, other, flip) in zip(row, sides, strict=True):
            values = table.means(name)
            _lines(panel, axis, other, values if flip else values.T)
            panel.set_title(FIGURES[name].title, fontsize=8)
    return to_picture(figure)


def _is_ordered(axis: Axis) -> bool:
    return len(axis.values) > 1 and axis.kind in ("lora", "strength", "strength_clip", "cfg", "steps", "seed")


def _heat_map(panel: Any, values: np.ndarray, table: Table, name: str) -> None:
    plan = table.plan
    panel.imshow(values, aspect="auto", cmap="viridis")
    panel.set_title(FIGURES[name].title, fontsize=8)
    for axis, ticks, labels in ((plan.x, panel.set_xticks, panel.set_xticklabels), (plan.y, panel.set_yticks, panel.set_yticklabels)):
        ticks(range(len(axis.values)) if axis else [])
        labels(_short(axis.labels) if axis else [], **_font(axis, 7), rotation=30 if axis is plan.x else 0, ha="right")
    known = values[np.isfinite(values)]
    middle = (known.max() + known.min()) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            panel.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7, color="white" if value < middle else "black")


def _lines(panel: Any, axis: Axis, other: Axis | None, values: np.ndarray) -> None:
    """`values` are (places along the axis, lines)."""
    numbers = isinstance(axis.values[0], (int, float))
    places = list(axis.values) if numbers else list(range(len(axis.values)))
    if not numbers:
        panel.set_xticks(places)
        panel.set_xticklabels(_short(axis.labels), **_font(axis, 7), rotation=30, ha="right")
    for number in range(values.shape[1]):
        panel.plot(places, values[:, number], "o-", markersize=3.5, linewidth=1.2)
    panel.set_xlabel("file" if axis.kind == "lora" else axis.kind, fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(color="0.92")
    if other and values.shape[1] <= 8:
        add_legend(panel, _short(other.labels))


def add_legend(panel: Any, names: Sequence[str]) -> None:
    """Name the panel's first lines. Texts are set last: matplotlib leaves out names that begin with an underscore."""
    legend = panel.legend(panel.lines[: len(names)], ["-"] * len(names), frameon=False, prop=plot_font("".join(names), 6))
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


def _short(labels: Sequence[str]) -> list[str]:
    """The ends of long labels, where names of files differ."""
    return [label if len(label) <= 18 else "…" + label[-17:] for label in labels]


def _font(axis: Axis | None, size: int) -> dict[str, Any]:
    return {"fontproperties": plot_font("".join(axis.labels) if axis else "", size), "parse_math": False}


def new_figure(width: int, height: int) -> Any:
    """A matplotlib figure of so many pixels, without pyplot, which would keep it for the whole process."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_picture(figure: Any) -> Image:
    from PIL import Image as Images

    canvas = figure.canvas
    canvas.draw()
    return Images.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
