"""The loss curve of a run as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .fonts import find_font

NAMED_RATES = 4  # more rates than these share one entry of the legend


def draw_loss_curve(
    path: Path | str,
    steps: Sequence[int],
    losses: Sequence[float],
    *,
    validation: Sequence[tuple[int, float]] = (),
    lr: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> None:
    """Write the curve to `path`, which appears complete or not at all.

    `losses` and each list of `lr` (parameter-group name -> rates) belong to `steps`; `validation` holds (step, loss).
    """
    # The object API: pyplot would register figures for the whole process and choose a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_losses(axes, np.asarray(steps), np.asarray(losses, dtype=float), validation)
    if lr:
        rates = axes.twinx()
        _draw_rates(rates, np.asarray(steps), lr)
        axes.set_zorder(rates.get_zorder() + 1)  # the loss in front; its background would hide the rates
        axes.patch.set_visible(False)
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylabel("loss")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines["top"].set_visible(False)
    lines, names = [], []
    for each in figure.axes:
        more_lines, more_names = each.get_legend_handles_labels()
        lines, names = lines + more_lines, names + more_names
    if lines:
        figure.legend(lines, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    if title:
        _draw_title(axes, title)
    _save(figure, Path(path))


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over `window` neighbours, half on each side, fewer at the ends; values that are not finite do not count."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    places = np.arange(len(values))
    low = np.maximum(places - window // 2, 0)
    high = np.minimum(places + window // 2 + 1, len(values))
    number = counts[high] - counts[low]
    return np.where(number > 0, (sums[high] - sums[low]) / np.maximum(number, 1), np.nan)


def _draw_losses(axes: Any, steps: np.ndarray, losses: np.ndarray, validation: Sequence[tuple[int, float]]) -> None:
    if len(steps):
        size = 5 if len(steps) < 150 else 3.5 if len(steps) < 2000 else 2
        axes.plot(steps, losses, "o", color="#7fa8d6", alpha=0.55, markersize=size, markeredgewidth=0, label="each step")
    window = min(201, max(5, len(steps) // 15)) // 2 * 2 + 1
    if len(steps) > window:
        smooth = moving_mean(losses, window)
        axes.plot(steps, smooth, color="#1f5fa8", linewidth=1.8, label=f"mean of {window} neighbouring steps")
    if validation:
        places, values = zip(*validation, strict=True)
        axes.plot(places, values, "o-", color="#d1495b", markersize=5, linewidth=1, label="validation")
    if not len(steps) and not validation:
        axes.text(0.5, 0.5, "no steps yet", transform=axes.transAxes, ha="center", color="0.5")


def _draw_rates(axes: Any, steps: np.ndarray, lr: Mapping[str, Sequence[float]]) -> None:
    """Groups with the same rates share a line."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, rates in lr.items():
        groups.setdefault(tuple(rates), []).append(name)
    many = f"learning rates of {len(lr)} groups" if len(groups) > NAMED_RATES else ""
    for number, (style, (rates, names)) in enumerate(zip(("--", ":", "-.") * len(groups), groups.items(), strict=False)):
        label = "learning rate" if len(groups) == 1 else f"learning rate, {', '.join(names)}"
        label = label if not many else many if number == 0 else None
        axes.plot(steps, rates, style, color="#8aa873", linewidth=1.2, label=label)
    axes.set_ylabel("learning rate", color="#4f6b39")
    axes.tick_params(axis="y", colors="#4f6b39")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set_ylim(bottom=0)
    axes.spines["top"].set_visible(False)


def _draw_title(axes: Any, title: str) -> None:
    from matplotlib.font_manager import FontProperties

    file, _face = find_font(title)
    axes.set_title(title, fontproperties=FontProperties(fname=file or None, size=12), parse_math=False, wrap=True)


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
