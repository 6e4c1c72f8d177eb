"""Weights by timestep against diffusers' ratios and formulas written out here."""

from __future__ import annotations

import pytest
import torch

from trainer.diffusion.objective import NoiseSchedule
from trainer.diffusion.weighting import WEIGHTINGS

TIMESTEPS = [0, 50, 100, 200, 300, 500, 700, 900, 999]
RATIOS = [1175, 19.65, 8.45, 3.06, 1.44, 0.382, 0.0899, 0.0144, 0.00468]  # measured in sd-scripts


def ratios() -> list[float]:
    """The ratios of diffusers' scheduler, as its training helper gives them."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    library = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
    return compute_snr(library, torch.tensor(TIMESTEPS)).tolist()


def zero_terminal() -> NoiseSchedule:
    """The rescaled schedule of Lin et al. 2023 (arXiv 2305.08891), as diffusers makes it."""
    from diffusers import DDPMScheduler

    options = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}
    return NoiseSchedule(DDPMScheduler(**options).alphas_cumprod.double(), "v")


def test_ratios_are_those_of_diffusers_and_kohya():
    own = NoiseSchedule.scaled_linear().snr[TIMESTEPS].tolist()
    assert own == pytest.approx(ratios(), rel=1e-3)
    assert own == pytest.approx(RATIOS, rel=5e-3)


@pytest.mark.parametrize(
    ("name", "prediction", "value", "formula"),
    [
        ("min_snr_gamma", "epsilon", 5.0, lambda snr: min(snr, 5.0) / snr),
        ("min_snr_gamma", "v", 5.0, lambda snr: min(snr, 5.0) / (snr + 1)),
        ("min_snr_gamma", "epsilon", 0.01, lambda snr: min(snr, 0.01) / snr),
        ("debiased", "epsilon", 1.0, lambda snr: 1 / min(snr, 1000) ** 0.5),
        ("debiased", "v", 1.0, lambda snr: 1 / (snr + 1)),
        ("scale_v_pred", "v", 1.0, lambda snr: snr / (snr + 1)),
        ("v_pred_like", "epsilon", 0.3, lambda snr: 1 + 0.3 * (snr + 1) / snr),
    ],
)
def test_weights_follow_their_formula(name, prediction, value, formula):
    table = WEIGHTINGS[name].of(NoiseSchedule.scaled_linear().snr, prediction, value)
    assert table[TIMESTEPS].tolist() == pytest.approx([formula(snr) for snr in ratios()], rel=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_are_finite_with_zero_terminal_snr(name, prediction):
    """They follow the rescaled schedule, whose last ratio is 0, and not the one before it."""
    snr = zero_terminal().snr
    assert float(snr[-1]) == 0
    table = WEIGHTINGS[name].of(snr, prediction, 5.0)
    assert torch.isfinite(table).all() and bool((table >= 0).all())
    plain = WEIGHTINGS[name].of(NoiseSchedule.scaled_linear().snr, prediction, 5.0)
    assert float((table - plain).abs().max()) > 1e-3


def test_weights_at_zero_terminal_snr():
    snr = zero_terminal().snr
    last = {(name, kind): float(WEIGHTINGS[name].of(snr, kind, 5.0)[-1]) for name in WEIGHTINGS for kind in ("epsilon", "v")}
    assert last["min_snr_gamma", "epsilon"] == 1 and last["min_snr_gamma", "v"] == 0
    assert last["debiased", "v"] == 1 and last["debiased", "epsilon"] == pytest.approx(1000**0.5)
    assert last["scale_v_pred", "v"] == 0 and last["v_pred_like", "epsilon"] == pytest.approx(1 + 5 * 1001)
