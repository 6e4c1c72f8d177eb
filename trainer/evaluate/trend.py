"""Means, variances and slopes of a noisy series, each with a standard error that respects correlation between neighbours.

The long-run variance is that of Newey and West (1987, "A simple, positive semi-definite, heteroskedasticity and autocorrelation
consistent covariance matrix"): Bartlett weights over so many lags as Andrews (1991, "Heteroskedasticity and autocorrelation
consistent covariance matrix estimation", equations 6.2 and 6.4) derives from the correlation of neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..events import BANDS

_MOST_CORRELATED = 0.97  # above it the lags would outgrow the series
_SAMPLES_PER_BAND = 10  # fewer do not tell a band's level

Bands = Sequence[Sequence[Sequence[float]]]  # of each step: (band, samples, their mean loss)


def mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), math.sqrt(long_run_variance(values - values.mean()) / len(values))


def variance(values: np.ndarray) -> tuple[float, float]:
    """Variance and its standard error: the variance is the mean of the squared deviations."""
    return mean((values - values.mean()) ** 2)


def slope(values: np.ndarray) -> tuple[float, float]:
    """Least-squares slope per step and its standard error."""
    places = np.arange(len(values)) - (len(values) - 1) / 2
    weight = float((places**2).sum())
    found = float((places * values).sum()) / weight
    left = values - values.mean() - found * places
    return found, math.sqrt(len(values) * long_run_variance(places * left)) / weight


def ratio(values: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Mean of `values` over that of `others`, taken in pairs, and its standard error (Cochran 1977, "Sampling techniques", 2.9)."""
    count, found = len(values), float(values.mean() / others.mean())
    left = values - found * others
    return found, math.sqrt(float((left**2).sum()) / (count * (count - 1))) / float(others.mean())


def long_run_variance(values: np.ndarray) -> float:
    """Variance of the mean of `values`, whose mean is 0, times their number.

    Never below that of independent values: in a short series, neighbours that differ by chance would feign certainty.
    """
    count = len(values)
    independent = total = float((values**2).sum())
    if total == 0:
        return 0.0
    lags = _lags(values, total)
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * float((values[lag:] * values[:-lag]).sum())
    return max(total, independent) / count


def _lags(values: np.ndarray, total: float) -> int:
    """So many neighbours as a series whose neighbours correlate like these needs."""
    near = float((values[1:] * values[:-1]).sum()) / total
    near = min(max(near, -_MOST_CORRELATED), _MOST_CORRELATED)
    alpha = 4 * near**2 / (1 - near**2) ** 2
    return min(int(1.1447 * (alpha * len(values)) ** (1 / 3)), len(values) // 3)


def swings(values: np.ndarray, alternation: float, swing: float) -> bool:
    """Whether the series, without its parabola, alternates or moves in waves that independent noise would not make.

    `alternation` is the correlation of neighbours below which it alternates, `swing` the multiple of noise's variance.
    """
    places = np.arange(len(values))
    left = values - np.polyval(np.polyfit(places, values, 2), places)
    noise = float((left**2).mean())
    if noise < 1e-16:
        return False
    if float((left[1:] * left[:-1]).mean()) / noise < alternation:
        return True
    size = max(5, len(left) // 12)
    blocks = left[: len(left) // size * size].reshape(-1, size)
    within = float(blocks.var(axis=1, ddof=1).mean())
    return bool(size * blocks.mean(axis=1).var(ddof=1) > swing * max(within, 1e-16))


def expected_by_timestep(bands: Bands, count: int) -> tuple[np.ndarray, float] | None:
    """What the loss of each of `count` steps would be if only its samples' timesteps mattered, and the mean over all timesteps.

    A sample's loss depends more on the drawn timestep than on what was learned. Each band's mean over the whole run takes
    that part out: as a difference, a control variate that leaves means as they are (Cochran 1977, chapters 5A and 7).
    None where timesteps are not known, or too few to tell.
    """
    if len(bands) != count or not all(len(step) for step in bands):
        return None
    numbers, sums = np.zeros((count, BANDS)), np.zeros((count, BANDS))
    for place, step in enumerate(bands):
        for band, samples, loss in step:
            numbers[place, int(band)] += samples
            sums[place, int(band)] += samples * loss
    total = numbers.sum(0)
    used = total > 0
    if not np.isfinite(sums).all() or total.sum() < _SAMPLES_PER_BAND * used.sum():
        return None
    levels = sums.sum(0) / np.maximum(total, 1)
    return numbers @ levels / numbers.sum(1), float(_shares(total[used]) @ levels[used])


def _shares(counts: np.ndarray) -> np.ndarray:
    """How often each band is drawn: equally often, unless Pearson's chi-squared says that chance did not make these counts."""
    even = counts.mean()
    freedom = len(counts) - 1
    apart = float(((counts - even) ** 2).sum()) / even
    return np.full(len(counts), 1 / len(counts)) if apart <= freedom + 3 * math.sqrt(2 * freedom) else counts / counts.sum()


def band_series(bands: Bands) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each band that occurs: the steps (from 0) with samples in it, how many, and their mean losses."""
    found: dict[int, list[tuple[int, float, float]]] = {}
    for place, step in enumerate(bands):
        for band, samples, loss in step:
            found.setdefault(int(band), []).append((place, samples, loss))
    return {band: tuple(np.asarray(column, float) for column in zip(*found[band], strict=True)) for band in sorted(found)}  # type: ignore[misc]


def band_title(band: int) -> str:
    """The timesteps of a band, of 1000."""
    return f"{1000 * band // BANDS}-{1000 * (band + 1) // BANDS - 1}"
