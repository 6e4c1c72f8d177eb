"""Verdicts on losses of a known kind, for several seeds each, and their numbers against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.evaluate.losses import LEAST_STEPS, VERDICTS, analyse_loss_map, analyse_losses

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


def by_timestep(level: np.ndarray, seed: int, batch: int = 1) -> tuple[list[float], list[list[tuple[int, int, float]]]]:
    """Losses of samples at random timesteps, those at little noise ten times those at much, of a known level; and their bands."""
    rng = np.random.default_rng(seed)
    losses, bands = [], []
    for scale in level:
        timesteps = rng.uniform(size=batch)
        values = scale * 10**-timesteps * rng.lognormal(-0.01125, 0.15, batch)
        losses.append(float(values.mean()))
        parts = [(part, values[(timesteps * 10).astype(int) == part]) for part in range(10)]
        bands.append([(part, len(own), float(own.mean())) for part, own in parts if len(own)])
    return losses, bands


MEAN_OVER_TIMESTEPS = 0.9 / math.log(10)  # of 10^-t over t from 0 to 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["converging", "still falling", "plateau", "diverging"])
def test_the_kind_is_recognised_at_batch_1_when_timesteps_are_known(kind, seed):
    losses, bands = by_timestep(KINDS[kind], seed)
    assert analyse_losses(losses, bands=bands).verdict == kind


def test_known_timesteps_make_the_level_certain():
    """The level lies within its errors of the truth, and these are less than half of those without the timesteps."""
    apart, shrunk = [], []
    for seed in range(60):
        losses, bands = by_timestep(np.full(300, 0.15), seed)
        report = analyse_losses(losses, bands=bands)
        apart.append((report.level - 0.15 * MEAN_OVER_TIMESTEPS) / report.level_error)
        shrunk.append(report.level_error / analyse_losses(losses).level_error)
        assert report.verdict == "plateau"
    assert np.mean(shrunk) < 0.5
    assert 0.7 < np.std(apart) < 1.3 and abs(np.mean(apart)) < 0.4


def test_a_table_by_timestep():
    losses, bands = by_timestep(np.linspace(0.3, 0.1, 600), 0, batch=4)
    report = analyse_losses(losses, bands=bands)
    assert [band.timesteps for band in report.bands[:2]] == ["0-99", "100-199"] and len(report.bands) == 10
    assert sum(band.samples for band in report.bands) == 2400
    first = 10 ** -np.linspace(0, 0.1, 1001)  # the timesteps of the first band
    assert report.bands[0].level == pytest.approx(np.linspace(0.3, 0.1, 600)[-200:].mean() * first.mean(), rel=0.05)
    assert len(report.band_lines()) == 11 and "0-99" in report.band_lines()[1]
    assert analyse_losses(losses).band_lines() == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("share", "verdict"), [(0.8, "converging"), (1.0, "plateau"), (1.3, "diverging")])
def test_a_level_is_judged_beside_the_base_model_s_own(share, verdict, seed):
    """A level series alone cannot tell: where the loss fell before the first steps were many enough, only the base model knows."""
    rng = np.random.default_rng(seed)
    losses, _ = by_timestep(np.full(600, 0.15), seed, batch=4)
    base = [(step, losses[step - 1] / share * rng.lognormal(0, 0.03)) for step in range(25, 601, 25)]
    report = analyse_losses(losses, base=base)
    assert report.verdict == verdict
    assert report.base is not None and report.base.pairs == 8
    assert report.base.ratio == pytest.approx(share, rel=0.05)
    assert "of the base model's own" in report.lines()[2]


def test_few_measurements_of_the_base_model_are_not_judged():
    assert analyse_losses([0.1] * 60, base=[(15, 0.2), (30, 0.2), (45, 0.2), (60, 0.2)]).base is None
    even = analyse_losses([0.1] * 60, base=[(10 * place, 0.2) for place in range(1, 7)]).base
    assert even is not None and (even.pairs, even.ratio, even.ratio_error, even.learned) == (5, 0.5, 0.0, True)


def test_held_out_pictures_show_learning_that_the_steps_hide():
    assert analyse_losses(KINDS["plateau"], [(0, 0.2), (100, 0.16), (200, 0.15)]).verdict == "converging"
    assert analyse_losses(KINDS["plateau"], [(0, 0.2), (200, 0.195)]).verdict == "plateau"
    assert analyse_losses(KINDS["plateau"], [(100, 0.2), (200, 0.1)]).verdict == "plateau"  # nothing is known of the base model


def test_a_loss_map_of_comfyui_and_ours():
    assert analyse_loss_map({"loss": [0.1] * 40}).verdict == "plateau"
    losses, bands = by_timestep(KINDS["converging"], 0)
    ours = {"loss": losses, "validation": [(0, 0.2)], "lr": {"unet": [1e-4] * 300}, "bands": bands, "base": []}
    report = analyse_loss_map(ours)
    assert report.verdict == "converging" and report.validation_first == 0.2 and report.bands


def test_every_verdict_has_a_sentence_of_advice():
    assert set(KINDS) < set(VERDICTS)
