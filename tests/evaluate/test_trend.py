"""Standard errors against closed forms and against the spread over many series of known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.evaluate import trend
from trainer.events import BANDS


def correlated(rng: np.random.Generator, count: int, near: float) -> np.ndarray:
    """A stationary series of deviation 1 whose neighbours correlate by `near`."""
    values = np.empty(count)
    values[0] = rng.normal()
    for place in range(1, count):
        values[place] = near * values[place - 1] + math.sqrt(1 - near**2) * rng.normal()
    return values


@pytest.mark.parametrize("near", [0.0, 0.3, 0.6])
def test_the_error_of_a_mean_is_that_of_a_series_whose_neighbours_correlate(near):
    """Its closed form: sqrt((1 + near) / (1 - near) / count)."""
    rng = np.random.default_rng(1)
    found = [trend.mean(correlated(rng, 600, near)) for _ in range(60)]
    truth = math.sqrt((1 + near) / (1 - near) / 600)
    assert np.median([error for _, error in found]) == pytest.approx(truth, rel=0.15)
    assert np.std([value for value, _ in found]) == pytest.approx(truth, rel=0.3)


@pytest.mark.parametrize("near", [0.5, 0.85, -0.6])
def test_the_long_run_variance_is_newey_and_west_s_with_andrews_lags(near):
    """Written out: autocovariances with weights 1 - lag / (lags + 1); never below that of independent values."""
    values = correlated(np.random.default_rng(5), 90, near)
    values -= values.mean()
    rho = float((values[1:] * values[:-1]).sum() / (values**2).sum())
    lags = int(1.1447 * (4 * rho**2 / ((1 - rho) ** 2 * (1 + rho) ** 2) * 90) ** (1 / 3))
    assert 2 <= lags < 30
    covariances = [sum(values[place] * values[place - lag] for place in range(lag, 90)) / 90 for lag in range(lags + 1)]
    expected = sum((1 if lag == 0 else 2) * (1 - lag / (lags + 1)) * value for lag, value in enumerate(covariances))
    assert (expected < covariances[0]) == (near < 0)
    assert trend.long_run_variance(values) == pytest.approx(max(expected, covariances[0]))


def test_the_error_of_a_variance_is_the_textbook_s():
    """Of independent normal numbers: variance · sqrt(2 / count)."""
    rng = np.random.default_rng(2)
    found = [trend.variance(rng.normal(5, 0.2, 800)) for _ in range(40)]
    assert np.mean([value for value, _ in found]) == pytest.approx(0.04, rel=0.02)
    assert np.mean([error for _, error in found]) == pytest.approx(0.04 * math.sqrt(2 / 800), rel=0.1)


def test_a_slope_lies_within_its_errors():
    rng = np.random.default_rng(3)
    found = [trend.slope(1 - 0.001 * np.arange(300) + 0.1 * correlated(rng, 300, 0.4)) for _ in range(100)]
    apart = np.array([(value + 0.001) / error for value, error in found])
    assert 0.8 < apart.std() < 1.3 and abs(apart.mean()) < 0.35


def test_a_ratio_of_pairs_lies_within_its_errors():
    """Numbers that share a large random part tell their ratio well."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(150):
        base = rng.lognormal(-2, 0.8, 12)
        found.append(trend.ratio(0.8 * base * rng.lognormal(0, 0.05, 12), base))
    apart = np.array([(value - 0.8 * math.exp(0.05**2 / 2)) / error for value, error in found])
    assert 0.8 < apart.std() < 1.4
    assert np.mean([error for _, error in found]) < 0.02
    assert trend.ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == (0.5, 0.0)
    # Residuals of the ratio 2 are -1 and 1, their variance over count - 1 is 2, and the error sqrt(2 / count) over a mean of 1.
    assert trend.ratio(np.array([1.0, 3.0]), np.array([1.0, 1.0])) == (2.0, 1.0)


def test_bands_by_hand():
    """Band 0 has 5 samples of loss 1 and 15 of 3, on average 2.5; band 9 has 10 of 8."""
    bands = [[(0, 5, 1.0), (9, 5, 8.0)], [(0, 15, 3.0)], [(9, 5, 8.0)]]
    expected, average = trend.expected_by_timestep(bands, 3)
    assert expected.tolist() == [(2.5 + 8) / 2, 2.5, 8]
    assert average == (2.5 + 8) / 2  # 20 and 10 samples may well be of bands that are drawn equally often
    _, average = trend.expected_by_timestep([[(0, 90, 2.5), (1, 10, 8.0)]], 1)
    assert average == pytest.approx(0.9 * 2.5 + 0.1 * 8)  # 90 and 10 are not
    places, samples, losses = trend.band_series(bands)[9]
    assert (places.tolist(), samples.tolist(), losses.tolist()) == ([0, 2], [5, 5], [8, 8])
    assert trend.expected_by_timestep(bands, 4) is None
    assert trend.expected_by_timestep([[(0, 1, 1.0)], []], 2) is None
    assert trend.expected_by_timestep([[(0, 1, 1.0)], [(1, 1, 1.0)]], 2) is None  # too few to tell


@pytest.mark.parametrize(("other", "by_chance"), [(145, True), (165, False)])
def test_bands_count_equally_unless_chance_did_not_make_their_counts(other, by_chance):
    """Nine bands of 100 samples and one of more."""
    from scipy.stats import chisquare

    counts = [100] * 9 + [other]
    assert (chisquare(counts).pvalue > 0.01) == by_chance and not 1e-4 < chisquare(counts).pvalue < 0.01
    _, average = trend.expected_by_timestep([[(band, count, float(band)) for band, count in enumerate(counts)]], 1)
    assert average == pytest.approx(4.5 if by_chance else (36 * 100 + 9 * other) / (900 + other))


def test_the_titles_of_the_bands_cover_all_timesteps():
    titles = [trend.band_title(band) for band in range(BANDS)]
    assert titles[0] == "0-99" and titles[-1] == "900-999"
