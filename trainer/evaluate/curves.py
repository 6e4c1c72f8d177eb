"""The losses of a run as a PNG: each step, their mean, validation, the base model, learning rates, losses by timestep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..events import BANDS
from ..files import replacing
from .fonts import plot_font
from .trend import Bands, band_series, band_title

NAMED_RATES = 4  # more rates than these share one entry of the legend
LEAST_IN_BAND = 8  # steps with samples of one part of the timesteps, fewer make no line


def loss_figure(
    steps: Sequence[int],
    losses: Sequence[float],
    *,
    validation: Sequence[tuple[int, float]] = (),
    lr: Mapping[str, Sequence[float]] | None = None,
    bands: Bands = (),
    base: Sequence[tuple[int, float]] = (),
    title: str = "",
) -> Any:
    """The curve as a matplotlib figure.

    `losses`, each list of `lr` (parameter-group name -> rates) and `bands` (those of `StepDone`) belong to `steps`;
    `validation` holds (step, loss), `base` the same of the base model. Losses by timestep are drawn below the others.
    """
    # The object API: pyplot would register figures for the whole process and choose a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    parts = {} if len(bands) != len(steps) else {b: part for b, part in band_series(bands).items() if len(part[0]) >= LEAST_IN_BAND}
    figure = Figure(figsize=(9, 7.5 if parts else 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes, *more = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2)) if parts else [figure.add_subplot()]
    _draw_losses(axes, np.asarray(steps), np.asarray(losses, dtype=float), validation)
    if base:
        level = float(np.mean([loss for _, loss in base]))
        axes.axhline(level, color="#555555", linestyle=(0, (6, 4)), linewidth=1, label="the base model's own loss, mean")
    if lr:
        rates = axes.twinx()
        _draw_rates(rates, np.asarray(steps), lr)
        axes.set_zorder(rates.get_zorder() + 1)  # the loss in front; its background would hide the rates
        axes.patch.set_visible(False)
    for lower in more:
        _draw_bands(lower, np.asarray(steps), parts)
    for each in (axes, *more):
        each.grid(color="0.92")
        each.set_axisbelow(True)
        each.spines["top"].set_visible(False)
    axes.set_ylabel("loss")
    lowest = (axes, *more)[-1]
    lowest.set_xlabel("optimizer step")
    lowest.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    _draw_legend(figure, [each for each in figure.axes if each not in more])
    if title:
        _draw_title(axes, title)
    return figure


def draw_loss_map(path: Path | str, losses: Mapping[str, Any], title: str = "") -> None:
    """Write the curve of a LOSS_MAP, ComfyUI's own or that of `trainer.log`: its losses are those of the steps from 1.

    The picture appears complete or not at all; see `loss_figure`.
    """
    others = {name: losses[name] for name in ("validation", "lr", "bands", "base") if losses.get(name)}
    figure = loss_figure(range(1, len(losses["loss"]) + 1), losses["loss"], **others, title=title)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


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


def _draw_bands(axes: Any, steps: np.ndarray, parts: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """A smoothed line for each part of the timesteps, from little noise (light) to noise alone (dark)."""
    from matplotlib import colormaps
    from matplotlib.ticker import LogLocator, NullFormatter

    for band, (places, _, losses) in parts.items():
        window = max(5, len(losses) // 8) // 2 * 2 + 1
        colour = colormaps["viridis_r"](0.08 + 0.92 * band / (BANDS - 1))
        axes.plot(steps[places.astype(int)], moving_mean(losses, window), color=colour, linewidth=1.4, label=band_title(band))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("loss by timestep, mean")
    axes.spines["right"].set_visible(False)
    axes.legend(title="timesteps", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, title_fontsize=8)


def _draw_legend(figure: Any, all_axes: Sequence[Any]) -> None:
    """One legend below the picture."""
    lines, names = [], []
    for axes in all_axes:
        more_lines, more_names = axes.get_legend_handles_labels()
        lines, names = lines + more_lines, names + more_names
    if lines:
        figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


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
    axes.set_title(title, fontproperties=plot_font(title, 12), parse_math=False, wrap=True)
