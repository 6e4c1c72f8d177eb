"""What a series of training losses says: a verdict in words, with the numbers that it rests on.

A single step's loss says little: it depends more on the drawn timestep than on what was learned. So every statement here
is about means and straight lines with their standard errors, which count neighbouring steps that move together as less
than independent (Newey and West 1987, "A simple, positive semi-definite, heteroskedasticity and autocorrelation
consistent covariance matrix").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEAST_STEPS = 30
SURE = 3.2  # standard errors from which on a difference counts
RISE, FALL = 0.10, 0.02  # share of the level that a rise or fall over the last third must reach to count
SWING = 4.0  # from so many times the variance that independent steps would give, slow swings count as oscillation
ALTERNATION = -0.4  # correlation of neighbouring steps below which a series alternates
OVERFIT = 0.02  # share by which the last validation loss must lie above the lowest

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
class LossReport:
    """`level`, `slope` and their errors are of the last third of the steps; a slope is per step."""

    verdict: str  # a key of `VERDICTS`
    steps: int
    mean: float
    variance: float
    start: float  # mean of the first tenth
    start_error: float
    level: float
    level_error: float
    slope: float
    slope_error: float
    validation_first: float | None = None  # the base model's own loss, where validation ran before the first step
    validation_best: tuple[int, float] | None = None  # (step, loss)
    validation_last: float | None = None

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
                f"(mean of all {self.mean:.4f}, variance {self.variance:.5f})"
            )
        if self.validation_best is not None and self.validation_last is not None:
            step, best = self.validation_best
            lines.append(
                f"held-out pictures: lowest loss {best:.4f} at step {step}, last {self.validation_last:.4f}" + self._against_base()
            )
        if self.overfits:
            lines.append(f"it over-fits: use the file nearest to step {self.validation_best[0] if self.validation_best else 0}")
        return lines

    def _against_base(self) -> str:
        if not self.validation_first or self.validation_last is None:
            return ""
        return f", {self.validation_last / self.validation_first:.0%} of the base model's own {self.validation_first:.4f}"


def analyse_losses(losses: Sequence[float], validation: Sequence[tuple[int, float]] = ()) -> LossReport:
    """The report on a run's losses, one per step in order; `validation` holds (step, loss), step 0 being the base model."""
    series = np.asarray(losses, dtype=float)
    held_out = [(int(step), float(loss)) for step, loss in validation if math.isfinite(loss)]
    facts: dict[str, Any] = {
        "validation_first": held_out[0][1] if held_out and held_out[0][0] == 0 else None,
        "validation_best": min(held_out, key=lambda pair: pair[1]) if held_out else None,
        "validation_last": held_out[-1][1] if held_out else None,
    }
    finite = series[np.isfinite(series)]
    mean, variance = (float(finite.mean()), float(finite.var())) if len(finite) else (math.nan, math.nan)
    if len(finite) < len(series) or len(series) < LEAST_STEPS:
        verdict = "not finite" if len(finite) < len(series) else "too short"
        unknown = math.nan
        return LossReport(verdict, len(series), mean, variance, unknown, unknown, unknown, unknown, unknown, unknown, **facts)
    head, tail = _parts(series)
    numbers = (*_mean(head), *_mean(tail), *_slope(tail))
    return LossReport(_verdict(series), len(series), mean, variance, *numbers, **facts)


def _parts(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first tenth and the last third."""
    return series[: max(5, len(series) // 10)], series[-max(10, len(series) // 3) :]


def _verdict(series: np.ndarray) -> str:
    """Judged on logarithms: a loss at an early timestep is many times one at a late, so that plain values are badly skewed."""
    logs = np.log(np.maximum(series, 1e-12))
    head, tail = _parts(logs)
    (start, start_error), (level, level_error), (slope, slope_error) = _mean(head), _mean(tail), _slope(tail)
    change, apart = slope * len(tail), level - start
    clear = SURE * math.hypot(start_error, level_error) + 1e-9
    if (slope > SURE * slope_error and change > RISE) or apart > max(clear, RISE):
        return "diverging"
    if _swings(logs[len(logs) // 3 :]):
        return "oscillating"
    if slope < -SURE * slope_error and change < -FALL:
        return "still falling"
    return "converging" if apart < -clear else "plateau"


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its Newey-West standard error."""
    return float(values.mean()), math.sqrt(_long_run_variance(values - values.mean()) / len(values))


def _slope(values: np.ndarray) -> tuple[float, float]:
    """Least-squares slope per step and its Newey-West standard error."""
    places = np.arange(len(values)) - (len(values) - 1) / 2
    weight = float((places**2).sum())
    slope = float((places * values).sum()) / weight
    left = values - values.mean() - slope * places
    return slope, math.sqrt(len(values) * _long_run_variance(places * left)) / weight


def _long_run_variance(values: np.ndarray) -> float:
    """Variance of the mean times the count, with Bartlett weights over the lags that Newey and West (1994) suggest."""
    count = len(values)
    lags = int(4 * (count / 100) ** (2 / 9))
    total = float((values**2).sum()) / count
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * float((values[lag:] * values[:-lag]).sum()) / count
    return max(total, 0.0)


def _swings(values: np.ndarray) -> bool:
    """Whether the series, without its straight line, alternates or moves in waves that noise would not make."""
    places = np.arange(len(values))
    left = values - np.polyval(np.polyfit(places, values, 2), places)
    noise = float((left**2).mean())
    if noise < 1e-16:
        return False
    if float((left[1:] * left[:-1]).mean()) / noise < ALTERNATION:
        return True
    size = max(5, len(left) // 12)
    blocks = left[: len(left) // size * size].reshape(-1, size)
    within = float(blocks.var(axis=1, ddof=1).mean())
    return bool(size * blocks.mean(axis=1).var(ddof=1) > SWING * max(within, 1e-16))
