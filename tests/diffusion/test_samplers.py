from __future__ import annotations

import math

import pytest
import torch

from trainer.diffusion.samplers import (
    SAMPLERS,
    SCHEDULERS,
    initial_latents,
    make_noise,
    sigma_to_timestep,
    step_noise,
)
from trainer.events import never

# The literal numbers below came out of ComfyUI itself (a 2026 checkout, CPU, torch 2.13), in nine digits:
# comfy.samplers.calculate_sigmas with ModelSamplingDiscrete() (the schedule of SD1.5), comfy.sample.prepare_noise,
# comfy.k_diffusion.sampling.default_noise_sampler, and sample_* there with seed 11.
COMFYUI_SIGMAS = {
    ("normal", 5): [14.6146402, 4.08608103, 1.61558032, 0.695149541, 0.0291671604, 0.0],
    ("normal", 1): [14.6146402, 0.0],
    ("simple", 5): [14.6146412, 5.08776331, 2.27646303, 1.16057837, 0.569284916, 0.0],
    ("karras", 5): [14.6146431, 4.79653454, 1.27410078, 0.247949973, 0.0291671772, 0.0],
    ("karras", 1): [14.6146431, 0.0],
    ("exponential", 5): [
        14.6146402,
        3.08897638,
        0.652891755,
        0.137996376,
        0.0291671604,
        0.0,
    ],
    ("sgm_uniform", 5): [14.6146402, 5.09240818, 2.27973056, 1.16286457, 0.571188867, 0.0],
    ("ddim_uniform", 5): [5.13443089, 2.29285383, 1.16821599, 0.574050248, 0.0413144119, 0.0],
    ("ddim_uniform", 1): [0.0413144119, 0.0],
}
# Drawn from x = [10, -3] along karras, 5 steps, with the denoiser x / (1 + sigma^2).
COMFYUI_SAMPLES = {
    "euler": [0.466765583, -0.140029699],
    "euler_ancestral": [0.144522578, -0.339023083],
    "heun": [0.901520014, -0.270456046],
    "dpmpp_2m": [0.725888848, -0.217766717],
    "ddim": [0.466765583, -0.140029699],
}
COMFYUI_NOISE_SEED_7 = [-0.146795094, 0.786141276, 0.94682163, -1.114344]
COMFYUI_STEP_NOISE_SEED_7 = [0.271276504, -1.27291834, 0.502697051, 0.418080688]


def training_sigmas(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """SD1.5: betas linear in their square root from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, dim=0)
    return ((1 - kept) / kept).sqrt().to(dtype)


def draw(name: str, x: torch.Tensor, sigmas: torch.Tensor, denoise, *, seed: int = 11, on_step=lambda *_: None, stop=never):
    return SAMPLERS[name](denoise, x, sigmas, step_noise(x, seed), on_step, stop)


def unit_denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return x / (1 + sigma**2)


@pytest.mark.parametrize(("name", "steps"), COMFYUI_SIGMAS)
def test_sigmas_are_comfyuis(name, steps):
    expected = torch.tensor(COMFYUI_SIGMAS[name, steps])
    torch.testing.assert_close(SCHEDULERS[name](training_sigmas(), steps), expected, rtol=3e-7, atol=0)
    exact = SCHEDULERS[name](training_sigmas(torch.float64), steps)
    torch.testing.assert_close(exact, expected, rtol=1.2e-7, atol=0)


def test_ddim_rounds_its_stride_down():
    """1000 // 7 = 142: timesteps 1, 143 … 995, one more than was asked for."""
    expected = [float(training_sigmas()[t]) for t in (995, 853, 711, 569, 427, 285, 143, 1)]
    assert SCHEDULERS["ddim_uniform"](training_sigmas(), 7).tolist() == [*expected, 0.0]


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 1000])
def test_sigmas_descend_to_zero(name, steps):
    sigmas = SCHEDULERS[name](training_sigmas(), steps)
    assert sigmas.dtype == torch.float32
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert name == "ddim_uniform" or len(sigmas) == steps + 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_are_comfyuis(name):
    result = draw(name, torch.tensor([[10.0, -3.0]]), SCHEDULERS["karras"](training_sigmas(), 5), unit_denoise)
    torch.testing.assert_close(result, torch.tensor([COMFYUI_SAMPLES[name]]), rtol=2e-6, atol=1e-7)


def test_noise_is_comfyuis_and_the_global_generator_untouched():
    before = torch.get_rng_state()
    assert torch.equal(make_noise((1, 4), 7), torch.tensor([COMFYUI_NOISE_SEED_7]))
    assert torch.equal(step_noise(torch.zeros(1, 4), 7)(), torch.tensor([COMFYUI_STEP_NOISE_SEED_7]))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(7)
    assert torch.equal(make_noise((2, 4, 8, 8), 7), torch.randn(2, 4, 8, 8))
    torch.set_rng_state(before)


def test_the_largest_seed_of_the_configuration_works():
    draws = step_noise(make_noise((2, 2), 2**64 - 1), 2**64 - 1)
    assert not torch.equal(draws(), draws())


def test_full_noise_has_the_variance_of_noised_latents():
    noise, top = torch.ones(1, 1), float(training_sigmas()[-1])
    assert initial_latents(noise, SCHEDULERS["normal"](training_sigmas(), 5), top).item() == pytest.approx(math.sqrt(1 + top**2))
    # ddim_uniform starts below the top of the training range
    lower = SCHEDULERS["ddim_uniform"](training_sigmas(), 5)
    assert initial_latents(noise, lower, top).item() == pytest.approx(float(lower[0]))
    lower = SCHEDULERS["ddim_uniform"](training_sigmas(), 200)  # nearly at the top, but not there
    assert 0.95 < float(lower[0]) / top < 0.999
    assert initial_latents(noise, lower, top).item() == pytest.approx(float(lower[0]), rel=1e-6)


def test_timestep_is_the_nearest_in_log_sigma():
    sigmas = training_sigmas()
    comfyuis = {14.6146: 999, 20.0: 999, 7.0: 866, 1.2345: 418, 0.05: 2, 0.01: 0}
    assert {sigma: sigma_to_timestep(sigma, sigmas) for sigma in comfyuis} == comfyuis
    assert all(sigma_to_timestep(float(sigmas[t]), sigmas) == t for t in (0, 1, 500, 998, 999))
    assert sigma_to_timestep(sigmas[321], sigmas) == 321
    for t in (0, 1, 998):  # between the geometric and the arithmetic mean of two neighbours, the upper is nearer
        low, high = float(sigmas[t].double()), float(sigmas[t + 1].double())
        assert sigma_to_timestep((math.sqrt(low * high) * 3 + (low + high) / 2) / 4, sigmas) == t + 1


# For data N(mean, spread^2) the exact denoiser is linear and the ODE has a closed solution:
# x(b) = mean + (x(a) - mean) * sqrt(spread^2 + b^2) / sqrt(spread^2 + a^2).
MEAN, SPREAD = 0.7, 0.4


def gaussian_denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def error_after(name: str, steps: int) -> float:
    """Down to the smallest training sigma; the last step to 0 is first order everywhere and would hide the rest."""
    sigmas = SCHEDULERS["karras"](training_sigmas(), steps).double()[:-1]
    x = MEAN + torch.tensor([[-25.0, 3.0, 12.0]], dtype=torch.float64)
    shrunk = math.sqrt(SPREAD**2 + float(sigmas[-1]) ** 2) / math.sqrt(SPREAD**2 + float(sigmas[0]) ** 2)
    solution = MEAN + (x - MEAN) * shrunk
    return float((draw(name, x, sigmas, gaussian_denoise) - solution).abs().max())


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_the_error_falls_with_the_order_of_the_method(name, order):
    coarse, fine = error_after(name, 40), error_after(name, 80)
    assert fine < 0.02
    assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_ancestral_samples_have_the_distribution_of_the_data():
    sigmas = SCHEDULERS["karras"](training_sigmas(), 150)
    x = initial_latents(make_noise((1, 20000), 3), sigmas, float(training_sigmas()[-1]))
    samples = draw("euler_ancestral", x, sigmas, gaussian_denoise)
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(samples.std()) == pytest.approx(SPREAD, rel=0.05)


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_are_reported_and_one_step_gives_the_clean_estimate(name):
    seen = []
    x, sigmas = torch.tensor([[4.0, -1.0]]), SCHEDULERS["normal"](training_sigmas(), 3)
    draw(name, x, sigmas, unit_denoise, on_step=lambda done, total, clean: seen.append((done, total, clean.shape)))
    assert seen == [(1, 3, x.shape), (2, 3, x.shape), (3, 3, x.shape)]
    assert x.tolist() == [[4.0, -1.0]], "the caller's latents are not written to"
    single = SCHEDULERS["karras"](training_sigmas(), 1)
    clean = unit_denoise(x, float(single[0]))
    torch.testing.assert_close(draw(name, x, single, unit_denoise), clean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_stop_ends_between_two_steps_with_none(name):
    seen = []
    sigmas = SCHEDULERS["normal"](training_sigmas(), 10)
    result = draw(name, torch.ones(1, 2), sigmas, unit_denoise, on_step=lambda *a: seen.append(a), stop=lambda: len(seen) > 3)
    assert result is None
    assert len(seen) == 4
