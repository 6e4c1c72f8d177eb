"""Errors, thresholds and masked means against formulas written out here."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.diffusion.losses import HUBER_SCHEDULES, LOSSES, mean_error
from trainer.diffusion.objective import NoiseSchedule

DIFFERENCES = torch.tensor([-3.0, -0.5, 0.0, 0.02, 1.0, 40.0]).view(1, 6, 1, 1)


def errors(kind: str, c: float | None = None) -> list[float]:
    threshold = None if c is None else torch.full((1, 1, 1, 1), c)
    return LOSSES[kind].of(DIFFERENCES, threshold).flatten().tolist()


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("l2", lambda d, c: d * d),
        ("l1", lambda d, c: abs(d)),
        ("huber", lambda d, c: 2 * c * (math.hypot(d, c) - c)),
        ("smooth_l1", lambda d, c: 2 * (math.hypot(d, c) - c)),
    ],
)
def test_errors_follow_their_formula(kind, formula):
    expected = [formula(d, 0.1) for d in DIFFERENCES.flatten().tolist()]
    assert errors(kind, 0.1 if LOSSES[kind].has_threshold else None) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_huber_is_the_square_of_small_errors_and_linear_in_large_ones():
    small, large = torch.tensor([1e-2]), torch.tensor([1e3])
    assert float(LOSSES["huber"].of(small, torch.tensor([10.0]))) == pytest.approx(1e-4, rel=1e-2)
    assert float(LOSSES["huber"].of(large, torch.tensor([0.1]))) == pytest.approx(2 * 0.1 * 1e3, rel=1e-3)
    assert float(LOSSES["smooth_l1"].of(large, torch.tensor([0.1]))) == pytest.approx(2 * 1e3, rel=1e-3)


@pytest.mark.parametrize(
    ("schedule", "thresholds"),  # sd-scripts' own numbers for c = 0.1 at these timesteps
    [("exponential", [1.0, 0.562, 0.316, 0.178, 0.100]), ("snr", [0.95, 0.413, 0.231, 0.135, 0.104]), ("constant", [0.1] * 5)],
)
def test_thresholds_are_those_of_kohya(schedule, thresholds):
    table = HUBER_SCHEDULES[schedule](NoiseSchedule.scaled_linear().sigmas, 0.1, 1.0)
    assert table[[0, 250, 500, 750, 999]].tolist() == pytest.approx(thresholds, abs=1.5e-3)


def test_the_exponential_schedule_ends_one_step_before_c():
    """sd-scripts: exp(ln(c) / steps * timestep)."""
    table = HUBER_SCHEDULES["exponential"](NoiseSchedule.scaled_linear().sigmas, 0.1, 1.0)
    assert table[[1, 500, 999]].tolist() == pytest.approx([math.exp(math.log(0.1) / 1000 * t) for t in (1, 500, 999)], rel=1e-9)


def test_scale_multiplies_the_schedules_that_have_one():
    sigmas = NoiseSchedule.scaled_linear().sigmas
    ratio = {name: of(sigmas, 0.1, 3.0) / of(sigmas, 0.1, 1.0) for name, of in HUBER_SCHEDULES.items()}
    assert {name: round(float(table.mean()), 6) for name, table in ratio.items()} == {"snr": 1.0, "exponential": 3.0, "constant": 3.0}


def test_thresholds_are_finite_where_there_is_nothing_but_noise():
    sigmas = torch.tensor([0.03, 1.0, math.inf], dtype=torch.float64)
    assert HUBER_SCHEDULES["snr"](sigmas, 0.1, 1.0).tolist() == pytest.approx([0.9 / 1.03**2 + 0.1, 0.325, 0.1])


def case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 1, 6, 4)
    mask[0, :, :2], mask[1, :, 3:, 1:3] = 1, 0.5
    return torch.rand(2, 4, 6, 4, generator=generator), mask


def test_the_mean_is_that_of_the_masked_area():
    values, mask = case()
    expected = [values[0, :, :2].mean(), values[1, :, 3:, 1:3].mean()]
    torch.testing.assert_close(mean_error(values, mask), torch.stack(expected), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mean_error(values, torch.ones_like(mask)), mean_error(values, None), rtol=1e-5, atol=1e-6)


def test_what_lies_outside_the_mask_changes_nothing():
    values, mask = case()
    other = torch.where(mask > 0, values, values + 100)
    assert torch.equal(mean_error(values, mask), mean_error(other, mask))


def test_a_partly_masked_pixel_counts_partly():
    values, mask = torch.tensor([2.0, 8.0]).view(1, 1, 1, 2), torch.tensor([1.0, 0.25]).view(1, 1, 1, 2)
    assert float(mean_error(values, mask)) == pytest.approx((2 + 0.25 * 8) / 1.25)


def test_an_empty_mask_gives_a_loss_and_a_gradient_of_zero():
    values, mask = case()
    values.requires_grad_()
    loss = mean_error(values, torch.cat([mask[:1], torch.zeros(1, 1, 6, 4)]))
    loss.sum().backward()
    assert float(loss[1].detach()) == 0 and not values.grad[1].any() and values.grad[0].any()
