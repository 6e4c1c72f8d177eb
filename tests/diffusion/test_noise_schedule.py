"""The noise schedule against diffusers, and the identities that tie noising, targets and denoising together."""

from __future__ import annotations

import pytest
import torch

from trainer.diffusion.objective import NoiseSchedule

TIMESTEPS = torch.tensor([0, 1, 500, 998, 999])


def case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 3, 2, generator=generator), torch.randn(5, 4, 3, 2, generator=generator)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_noising_and_targets_are_those_of_diffusers(prediction):
    from diffusers import DDPMScheduler

    library = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
    schedule, (clean, noise) = NoiseSchedule.scaled_linear(prediction=prediction), case()
    torch.testing.assert_close(schedule.alphas_cumprod.float(), library.alphas_cumprod, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        schedule.add_noise(clean, noise, TIMESTEPS), library.add_noise(clean, noise, TIMESTEPS), rtol=1e-4, atol=1e-5
    )
    expected = noise if prediction == "epsilon" else library.get_velocity(clean, noise, TIMESTEPS)
    torch.testing.assert_close(schedule.target(clean, noise, TIMESTEPS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_perfect_prediction_gives_the_clean_latents_back(prediction):
    """The sampler's x is x_t / sqrt(abar_t) = x_0 + sigma · noise."""
    schedule, (clean, noise) = NoiseSchedule.scaled_linear(prediction=prediction), case()
    clean, noise = clean.double(), noise.double()
    target = schedule.target(clean, noise, TIMESTEPS)
    noisy = schedule.add_noise(clean, noise, TIMESTEPS)
    for place, timestep in enumerate(TIMESTEPS):
        sigma = float(schedule.sigmas[timestep])
        x = noisy[place] * (1 + sigma**2) ** 0.5
        torch.testing.assert_close(schedule.denoised(x, target[place], sigma), clean[place], rtol=1e-9, atol=1e-9)


def test_the_noise_range_of_stable_diffusion():
    sigmas = NoiseSchedule.scaled_linear().sigmas
    assert len(sigmas) == 1000 and bool((sigmas[1:] > sigmas[:-1]).all())
    assert float(sigmas[0]) == pytest.approx(0.0292, abs=1e-4) and float(sigmas[-1]) == pytest.approx(14.6146, abs=1e-3)


def test_zero_terminal_snr_is_that_of_diffusers():
    from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr as library

    plain, rescaled = (NoiseSchedule.scaled_linear(prediction="v", zero_terminal_snr=zero) for zero in (False, True))
    betas = 1 - plain.alphas_cumprod / torch.cat([torch.ones(1), plain.alphas_cumprod[:-1]])
    torch.testing.assert_close(rescaled.alphas_cumprod, torch.cumprod(1 - library(betas), 0), rtol=1e-9, atol=1e-12)
    assert rescaled.zero_terminal_snr and not plain.zero_terminal_snr
    assert float(rescaled.alphas_cumprod[-1]) == 0 and float(rescaled.alphas_cumprod[0]) == pytest.approx(float(plain.alphas_cumprod[0]))


def test_at_zero_terminal_snr_the_last_timestep_is_noise_and_its_target_the_picture():
    schedule, (clean, noise) = NoiseSchedule.scaled_linear(prediction="v", zero_terminal_snr=True), case()
    last = torch.full((5,), 999)
    torch.testing.assert_close(schedule.add_noise(clean, noise, last), noise)
    torch.testing.assert_close(schedule.target(clean, noise, last), -clean)
    assert float(schedule.sigmas[-1]) == pytest.approx(4518.77, abs=0.01)  # ComfyUI's sigma_max of such models
    assert bool((schedule.sigmas[1:] > schedule.sigmas[:-1]).all())


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_sampling_works_from_zero_terminal_snr(sampler):
    """With a perfect v prediction every sampler gives the clean latents back, from sigma 4518 on."""
    from trainer.diffusion.samplers import SAMPLERS, SCHEDULERS, initial_latents

    schedule, (clean, noise) = NoiseSchedule.scaled_linear(prediction="v", zero_terminal_snr=True), case()
    sigmas = SCHEDULERS["normal"](schedule.sigmas, 8)

    def denoise(x, sigma):
        velocity = ((x - clean) / sigma - sigma * clean) / (1 + sigma**2) ** 0.5
        return schedule.denoised(x, velocity, sigma)

    start = initial_latents(noise, sigmas, float(schedule.sigmas[-1]))
    found = SAMPLERS[sampler](denoise, start, sigmas, lambda: noise, lambda *_: None, lambda: False)
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=2e-3)
