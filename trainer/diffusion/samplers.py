"""Samplers and noise schedules in the sigma form of Karras et al. 2022 (arXiv 2206.00364), numerically ComfyUI's.

A noisy latent is x = x0 + sigma * noise with sigma = sqrt((1 - abar) / abar). A sampler follows
dx/dsigma = (x - x0(x, sigma)) / sigma from sigmas[0] down to 0; x0(x, sigma) is the model's estimate of the clean x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..events import StopCheck

Denoise = Callable[[Tensor, float], Tensor]  # (noisy x, sigma) -> estimate of the clean x0, same shape
Noise = Callable[[], Tensor]  # fresh N(0, 1) in the shape of x
OnStep = Callable[[int, int, Tensor], None]  # (steps done, from 1; steps in all; the clean estimate of this step)
Sampler = Callable[[Denoise, Tensor, Tensor, Noise, OnStep, StopCheck], "Tensor | None"]
Scheduler = Callable[[Tensor, int], Tensor]


# --- noise ---------------------------------------------------------------------------------------------------------


def make_noise(shape: Sequence[int], seed: int) -> Tensor:
    """N(0, 1) on the CPU, the same numbers as ComfyUI's for this seed; torch's global generator is left alone."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def step_noise(like: Tensor, seed: int) -> Noise:
    """The noise that ancestral samplers add, in the shape and on the device of `like`; the same sequence as ComfyUI's.

    On the CPU the seed is one higher, or the first draw would repeat the starting noise. (ComfyUI 0.3.64 did not do
    that yet, so its ancestral pictures made on a CPU differ; on a GPU all versions agree.)
    """
    if like.device.type == "cpu":
        seed = (seed + 1) % 2**64
    generator = torch.Generator(device=like.device).manual_seed(seed)
    return lambda: torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def initial_latents(noise: Tensor, sigmas: Tensor, sigma_max: float) -> Tensor:
    """Where sampling starts from `noise` alone, at sigmas[0].

    At the top of the training range x has the variance 1 + sigma^2 of noised unit-variance latents; a schedule that
    begins lower gets noise * sigma, as ComfyUI does with an empty latent.
    """
    sigma = sigmas[0].to(noise.device)
    full = float(sigma) > sigma_max or math.isclose(float(sigma), sigma_max, rel_tol=1e-5)
    return noise * (torch.sqrt(1.0 + sigma**2) if full else sigma)


def sigma_to_timestep(sigma: float | Tensor, training_sigmas: Tensor) -> int:
    """The training timestep whose log sigma is nearest; sigma > 0, `training_sigmas` (T,) ascending."""
    log_sigma = torch.as_tensor(sigma, dtype=torch.float32, device=training_sigmas.device).log()
    return int((log_sigma - training_sigmas.log()).abs().argmin())


# --- schedules -----------------------------------------------------------------------------------------------------
# Each takes the training sigmas (T,), ascending and positive, and a number of steps; it returns descending sigmas
# (steps + 1,) in float32 on the CPU, the last one 0.
# Training sigmas in float64 give ComfyUI's numbers to the last bit, because it takes their logarithm before rounding.


def _with_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas.float(), torch.zeros(1)])


def _end(training_sigmas: Tensor, index: int) -> float:
    return float(training_sigmas[index].float())


def _sigmas_at(timesteps: Tensor, training_sigmas: Tensor) -> Tensor:
    """Sigma at fractional timesteps, linear in log sigma between neighbours."""
    log_sigmas = training_sigmas.cpu().log().float()
    low, high, part = timesteps.floor().long(), timesteps.ceil().long(), timesteps.frac()
    return ((1 - part) * log_sigmas[low] + part * log_sigmas[high]).exp()


def normal(training_sigmas: Tensor, steps: int) -> Tensor:
    """Evenly spaced timesteps from the last to the first, both included."""
    return _with_zero(_sigmas_at(torch.linspace(len(training_sigmas) - 1, 0, steps), training_sigmas))


def sgm_uniform(training_sigmas: Tensor, steps: int) -> Tensor:
    """Evenly spaced timesteps from the last towards the first, which is left out (Stability's generative-models)."""
    return _with_zero(_sigmas_at(torch.linspace(len(training_sigmas) - 1, 0, steps + 1)[:-1], training_sigmas))


def simple(training_sigmas: Tensor, steps: int) -> Tensor:
    """Every (T / steps)-th training sigma counted from the top, without interpolation."""
    stride = len(training_sigmas) / steps
    return _with_zero(training_sigmas.cpu()[[-1 - int(step * stride) for step in range(steps)]])


def ddim_uniform(training_sigmas: Tensor, steps: int) -> Tensor:
    """Every (T // steps)-th training sigma counted from timestep 1, as in DDIM (Song et al. 2021, arXiv 2010.02502).

    Where `steps` does not divide T the number of sigmas can be higher than asked, as in ComfyUI.
    """
    stride = max(len(training_sigmas) // steps, 1)
    return _with_zero(training_sigmas.cpu()[1::stride].flip(0))


def karras(training_sigmas: Tensor, steps: int) -> Tensor:
    """Even steps in sigma^(1/7) (Karras et al. 2022, eq. 5 with rho = 7)."""
    rho = 7.0
    low, high = (_end(training_sigmas, end) ** (1 / rho) for end in (0, -1))
    return _with_zero((high + torch.linspace(0, 1, steps) * (low - high)) ** rho)


def exponential(training_sigmas: Tensor, steps: int) -> Tensor:
    """Even steps in log sigma."""
    low, high = (math.log(_end(training_sigmas, end)) for end in (0, -1))
    return _with_zero(torch.linspace(high, low, steps).exp())


SCHEDULERS: dict[str, Scheduler] = {
    "normal": normal,
    "karras": karras,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "ddim_uniform": ddim_uniform,
}


# --- samplers ------------------------------------------------------------------------------------------------------
# Each returns the clean latents, or None when `stop()` said so before a step. `sigmas` descends to 0.


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, _noise: Noise, on_step: OnStep, stop: StopCheck) -> Tensor | None:
    """Euler's method (Karras et al. 2022, algorithm 1 without the correction). Equals DDIM with eta = 0."""
    sigmas, total = sigmas.cpu(), len(sigmas) - 1
    for step in range(total):
        if stop():
            return None
        clean = denoise(x, float(sigmas[step]))
        x = x + (x - clean) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
        on_step(step + 1, total, clean)
    return x


def euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, on_step: OnStep, stop: StopCheck) -> Tensor | None:
    """Euler to a level below the next sigma, then fresh noise up to it: the posterior of DDPM (Ho et al. 2020)."""
    sigmas, total = sigmas.cpu(), len(sigmas) - 1
    for step in range(total):
        if stop():
            return None
        now, after = sigmas[step], sigmas[step + 1]
        clean = denoise(x, float(now))
        # Variance of q(x_after | x_now, x0): after^2 (now^2 - after^2) / now^2; `down` completes it to after^2.
        up = torch.minimum(after, (after**2 * (now**2 - after**2) / now**2) ** 0.5)
        down = (after**2 - up**2) ** 0.5
        x = clean if down == 0 else x + (x - clean) / now * (down - now) + noise() * up
        on_step(step + 1, total, clean)
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, _noise: Noise, on_step: OnStep, stop: StopCheck) -> Tensor | None:
    """Heun's second-order method (Karras et al. 2022, algorithm 1); two model calls a step, one in the last."""
    sigmas, total = sigmas.cpu(), len(sigmas) - 1
    for step in range(total):
        if stop():
            return None
        now, after = sigmas[step], sigmas[step + 1]
        clean = denoise(x, float(now))
        slope = (x - clean) / now
        if after > 0:
            ahead = x + slope * (after - now)
            slope = (slope + (ahead - denoise(ahead, float(after))) / after) / 2
        x = x + slope * (after - now)
        on_step(step + 1, total, clean)
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, _noise: Noise, on_step: OnStep, stop: StopCheck) -> Tensor | None:
    """DPM-Solver++(2M), multistep (Lu et al. 2022, arXiv 2211.01095, algorithm 2), with lambda = -log sigma."""
    sigmas, total = sigmas.cpu(), len(sigmas) - 1
    times = -sigmas.log()
    previous: Tensor | None = None
    for step in range(total):
        if stop():
            return None
        clean = denoise(x, float(sigmas[step]))
        width = times[step + 1] - times[step]
        direction = clean
        if previous is not None and sigmas[step + 1] > 0:
            half_ratio = 0.5 * width / (times[step] - times[step - 1])
            direction = (1 + half_ratio) * clean - half_ratio * previous
        # At the last step width is infinite: sigma ratio 0, expm1 -1, so x becomes the clean estimate.
        x = (sigmas[step + 1] / sigmas[step]) * x - torch.expm1(-width) * direction
        previous = clean
        on_step(step + 1, total, clean)
    return x


SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "ddim": euler,  # the same numbers for a picture drawn from noise alone
}
