"""Verdicts on losses of a known kind, for several seeds each, and their numbers against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.evaluate.losses import LEAST_STEPS, VERDICTS, analyse_losses

STEPS = np.arange(300)
KINDS = {
    "converging": 0.1 + 0.1 * np.exp(-STEPS / 25),
    "still falling": 0.2 - 0.1 * STEPS / 300,
    "plateau": np.full(300, 0.15),
    "diverging": 0.1 + 0.0006 * np.maximum(STEPS - 150, 0),
    "oscillating": 0.15 + 0.03 * np.sin(STEPS / 8),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_recognised_under_noise(kind, seed):
    noise = np.random.default_rng(seed).normal(0, 0.015, 300)
    report = analyse_losses(KINDS[kind] + noise)
    assert report.verdict == kind
    assert report.lines()[0].startswith(kind)


def test_noise_that_depends_on_the_timestep_is_no_trend():
    """Losses of single steps spread over a factor of ten, as those of a diffusion model do; at most one series in fifty misleads."""
    rng = np.random.default_rng(0)
    verdicts = [analyse_losses(rng.lognormal(-2.3, 0.8, 400)).verdict for _ in range(200)]
    assert sum(verdict not in ("plateau", "converging") for verdict in verdicts) <= 4


def test_alternating_losses_oscillate():
    assert analyse_losses([0.1, 0.3] * 50).verdict == "oscillating"


def test_a_loss_that_is_not_a_number():
    report = analyse_losses([0.1] * 40 + [math.nan])
    assert report.verdict == "not finite" and report.mean == pytest.approx(0.1)


def test_few_steps_say_nothing():
    assert analyse_losses([0.1] * (LEAST_STEPS - 1)).verdict == "too short"
    assert analyse_losses([]).verdict == "too short"


def test_a_constant_series_has_no_error():
    report = analyse_losses([0.25] * 60)
    assert (report.mean, report.level, report.slope, report.slope_error) == (0.25, 0.25, 0.0, 0.0)
    assert report.variance == 0 and report.verdict == "plateau"


def test_slope_of_a_straight_line():
    report = analyse_losses(1 - 0.001 * np.arange(90))
    assert report.slope == pytest.approx(-0.001)
    assert report.level == pytest.approx(1 - 0.001 * 74.5)  # the mean of steps 60 to 89


def test_errors_equal_the_textbook_for_independent_steps():
    """Without correlation the standard error of a mean is deviation / sqrt(count); over many series the two agree."""
    rng = np.random.default_rng(0)
    found = [analyse_losses(rng.normal(1, 0.1, 900)) for _ in range(60)]
    assert np.mean([report.level_error for report in found]) == pytest.approx(0.1 / math.sqrt(300), rel=0.1)
    weight = (np.arange(300) - 149.5) @ (np.arange(300) - 149.5)
    assert np.mean([report.slope_error for report in found]) == pytest.approx(0.1 / math.sqrt(weight), rel=0.1)
    assert np.std([report.level for report in found]) == pytest.approx(0.1 / math.sqrt(300), rel=0.3)


def test_validation_is_set_against_the_base_model_and_its_lowest_point():
    falling = KINDS["converging"]
    report = analyse_losses(falling, [(0, 0.2), (100, 0.15), (200, 0.16)])
    assert report.validation_best == (100, 0.15) and report.overfits
    assert "80% of the base model's own 0.2000" in "\n".join(report.lines())
    assert "step 100" in report.lines()[-1]
    assert not analyse_losses(falling, [(0, 0.2), (100, 0.15), (200, 0.1501)]).overfits
    assert analyse_losses(falling, [(100, 0.2)]).validation_first is None


def test_every_verdict_has_a_sentence_of_advice():
    assert set(KINDS) < set(VERDICTS)
