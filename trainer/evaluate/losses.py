"""What a series of training losses says: a verdict in words, with the numbers that it rests on.

A single step's loss says little: it depends more on the drawn timestep than on what was learned. So every statement here
is about means and straight lines with their standard errors (`trend`), after taking out what the timesteps explain where
the run recorded them, and about the base model's own loss on the very same noised pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..columns import columns
from . import trend

LEAST_STEPS = 30
LEAST_PAIRS = 5  # measurements of the base model from which on it is compared
SURE = 3.2  # standard errors from which on a difference counts
RISE, FALL = 0.10, 0.02  # share of the level that a rise or fall over the last third must reach to count
SWING = 4.0  # from so many times the variance that independent steps would give, slow swings count as oscillation
ALTERNATION = -0.4  # correlation of neighbouring steps below which a series alternates
OVERFIT = 0.02  # share by which the last validation loss must lie above the lowest
HELD_OUT_GAIN = 0.05  # share by which the lowest validation loss must lie below the base model's own to show learning

VERDICTS = {
    "not finite": "The loss stopped being a number: lower the learning rate, or train in bf16 or fp32.",
    "too short": f"Fewer than {LEAST_STEPS} steps say nothing about a trend.",
    "diverging": "The loss is rising: lower the learning rate, or use an earlier file.",
    "oscillating": "The loss swings without settling: lower the learning rate or raise the batch size.",
    "still falling": "The loss is still falling: more steps may help, if validation falls too.",
    "converging": "The loss fell and has settled.",
    "plateau": "The loss has not moved: raise the learning rate or the rank, and check captions and trigger word.",
}


@dataclass(frozen=True)
class BandLoss:
    """The loss at one part of the timesteps; `start` is of the first third of its steps, `level` of the last."""

    timesteps: str
    samples: int
    start: float
    start_error: float
    level: float
    level_error: float


@dataclass(frozen=True)
class BaseComparison:
    """`ratio` of the LoRA's loss to the base model's own on the same noised pictures, late in the run."""

    pairs: int
    base: float
    ratio: float
    ratio_error: float

    @property
    def doubt(self) -> float:
        """Half the width of the interval in which the ratio surely lies; few pairs tell their spread badly (Student's t)."""
        return SURE * self.ratio_error * math.sqrt((self.pairs - 1) / (self.pairs - 3))

    @property
    def learned(self) -> bool:
        return self.ratio < 1 - max(self.doubt, FALL)

    @property
    def harmed(self) -> bool:
        return self.ratio > 1 + max(self.doubt, RISE)

    def line(self) -> str:
        clear = "clearly better than" if self.learned else "clearly worse than" if self.harmed else "not clearly different from"
        return (
            f"late in the run the loss is {self.ratio:.1%} ± {self.ratio_error:.1%} of the base model's own on the same pictures and noise "
            f"({self.base:.4f}, {self.pairs} measurements): {clear} the base model"
        )


@dataclass(frozen=True)
class LossReport:
    """`level`, `slope` and their errors are of the last third of the steps; a slope is per step."""

    verdict: str  # a key of `VERDICTS`
    steps: int
    mean: float
    mean_error: float
    variance: float  # of the steps' losses as they are
    variance_error: float
    start: float = math.nan  # mean of the first tenth
    start_error: float = math.nan
    level: float = math.nan
    level_error: float = math.nan
    slope: float = math.nan
    slope_error: float = math.nan
    validation_first: float | None = None  # the base model's own loss, where validation ran before the first step
    validation_best: tuple[int, float] | None = None  # (step, loss)
    validation_last: float | None = None
    base: BaseComparison | None = None
    bands: tuple[BandLoss, ...] = ()

    @property
    def overfits(self) -> bool:
        """Whether the loss on held-out pictures has risen again after its lowest point."""
        if self.validation_best is None or self.validation_last is None:
            return False
        return self.validation_last > self.validation_best[1] * (1 + OVERFIT)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"overfits": self.overfits}

    def lines(self) -> list[str]:
        """The verdict for a person, with its numbers."""
        lines = [f"{self.verdict}: {VERDICTS[self.verdict]}"]
        if self.steps >= LEAST_STEPS and math.isfinite(self.level):
            lines.append(
                f"{self.steps} steps; loss {self.start:.4f} ± {self.start_error:.4f} in the first tenth, {self.level:.4f} ± "
                f"{self.level_error:.4f} in the last third, slope there {self.slope:.2e} ± {self.slope_error:.1e} per step "
                f"(mean of all {self.mean:.4f} ± {self.mean_error:.4f}, variance {self.variance:.5f} ± {self.variance_error:.5f})"
            )
        if self.base:
            lines.append(self.base.line())
        if self.validation_best is not None and self.validation_last is not None:
            step, best = self.validation_best
            lines.append(
                f"held-out pictures: lowest loss {best:.4f} at step {step}, last {self.validation_last:.4f}" + self._against_base()
            )
        if self.overfits:
            lines.append(f"it over-fits: use the file nearest to step {self.validation_best[0] if self.validation_best else 0}")
        return lines

    def band_lines(self) -> list[str]:
        """A table of the loss by timestep; empty where the run did not record it."""
        rows = [["timesteps", "samples", "first third", "last third", "change"]]
        for band in self.bands:
            numbers = [f"{value:.4f} ± {error:.4f}" for value, error in ((band.start, band.start_error), (band.level, band.level_error))]
            rows.append([band.timesteps, f"{band.samples}", *numbers, f"{band.level / band.start - 1:+.0%}" if band.start else ""])
        return columns(rows) if self.bands else []

    def _against_base(self) -> str:
        if not self.validation_first or self.validation_last is None:
            return ""
        return f", {self.validation_last / self.validation_first:.0%} of the base model's own {self.validation_first:.4f}"


def analyse_losses(
    losses: Sequence[float],
    validation: Sequence[tuple[int, float]] = (),
    *,
    bands: trend.Bands = (),
    base: Sequence[tuple[int, float]] = (),
) -> LossReport:
    """The report on a run's losses, one per step in order.

    `validation` holds (step, loss), step 0 being the base model; `bands` those of `StepDone`, one entry per step; `base` holds
    (step from 1, the base model's own loss at it).
    """
    series = np.asarray(losses, dtype=float)
    held_out = [(int(step), float(loss)) for step, loss in validation if math.isfinite(loss)]
    facts: dict[str, Any] = {
        "validation_first": held_out[0][1] if held_out and held_out[0][0] == 0 else None,
        "validation_best": min(held_out, key=lambda pair: pair[1]) if held_out else None,
        "validation_last": held_out[-1][1] if held_out else None,
    }
    finite = series[np.isfinite(series)]
    if len(finite) < len(series) or len(series) < LEAST_STEPS:
        verdict = "not finite" if len(finite) < len(series) else "too short"
        mean, variance = (trend.mean(finite), trend.variance(finite)) if len(finite) > 1 else ((math.nan, math.nan),) * 2
        return LossReport(verdict, len(series), *mean, *variance, **facts)
    facts |= {"base": compared(series, base), "bands": band_losses(bands)}
    expected, average = trend.expected_by_timestep(bands, len(series)) or (None, 0.0)
    steady = series if expected is None else series - expected + average
    head, tail = _parts(steady)
    numbers = (*trend.mean(steady), *trend.variance(series), *trend.mean(head), *trend.mean(tail), *trend.slope(tail))
    verdict = _verdict(series, expected, facts["base"])
    first, best = facts["validation_first"], facts["validation_best"]
    if verdict == "plateau" and first is not None and best[1] < (1 - HELD_OUT_GAIN) * first:
        verdict = "converging"  # noise and timesteps of validation never change, so that its figures show what the steps' noise hides
    return LossReport(verdict, len(series), *numbers, **facts)


def analyse_loss_map(losses: Mapping[str, Any]) -> LossReport:
    """The same for a LOSS_MAP, ComfyUI's own or that of `trainer.log`."""
    others = {name: losses[name] for name in ("bands", "base") if losses.get(name)}
    return analyse_losses(losses["loss"], losses.get("validation", ()), **others)


def compared(series: np.ndarray, base: Sequence[tuple[int, float]]) -> BaseComparison | None:
    """The last third's losses beside the base model's; None where there are too few of these."""
    pairs = [(series[int(step) - 1], loss) for step, loss in base if 0 < step <= len(series) and math.isfinite(loss)]
    late = sum(step > len(series) * 2 / 3 for step, _ in base)
    pairs = pairs[-max(late, LEAST_PAIRS) :]
    if len(pairs) < LEAST_PAIRS:
        return None
    ours, theirs = (np.asarray(column, dtype=float) for column in zip(*pairs, strict=True))
    return BaseComparison(len(pairs), float(theirs.mean()), *trend.ratio(ours, theirs))


def band_losses(bands: trend.Bands) -> tuple[BandLoss, ...]:
    """The loss of each part of the timesteps that has enough samples to speak of a start and an end."""
    result = []
    for band, (_, samples, losses) in trend.band_series(bands).items():
        third = len(losses) // 3
        if third >= 5:
            result.append(BandLoss(trend.band_title(band), int(samples.sum()), *trend.mean(losses[:third]), *trend.mean(losses[-third:])))
    return tuple(result)


def _parts(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first tenth and the last third."""
    return series[: max(5, len(series) // 10)], series[-max(10, len(series) // 3) :]


def _verdict(series: np.ndarray, expected: np.ndarray | None, base: BaseComparison | None) -> str:
    """Judged on logarithms: a loss at an early timestep is many times one at a late, so that plain values are badly skewed."""
    logs = np.log(np.maximum(series, 1e-12))
    if expected is not None:
        logs = logs - np.log(np.maximum(expected, 1e-12))
    head, tail = _parts(logs)
    (start, start_error), (level, level_error), (slope, slope_error) = trend.mean(head), trend.mean(tail), trend.slope(tail)
    change, apart = slope * len(tail), level - start
    clear = SURE * math.hypot(start_error, level_error) + 1e-9
    if (slope > SURE * slope_error and change > RISE) or apart > max(clear, RISE) or (base and base.harmed):
        return "diverging"
    if trend.swings(logs[len(logs) // 3 :], ALTERNATION, SWING):
        return "oscillating"
    if slope < -SURE * slope_error and change < -FALL:
        return "still falling"
    return "converging" if apart < -clear or (base and base.learned) else "plateau"
