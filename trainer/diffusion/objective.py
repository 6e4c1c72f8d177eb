"""Noise schedule, noising and targets of variance-preserving diffusion models.

Notation of Ho et al. 2020 (arXiv 2006.11239): x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise. The v target is that of
Salimans & Ho 2022 (arXiv 2202.00512): v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v"]
_LEAST_ALPHA = 4.8973451890853435e-08  # ComfyUI's abar where it is zero in training, so that sigma is finite (4518.8)


@dataclass(frozen=True)
class NoiseSchedule:
    """`alphas_cumprod` is abar_t for t = 0 … T-1, float64 on the CPU."""

    alphas_cumprod: Tensor
    prediction: Prediction = "epsilon"

    @classmethod
    def scaled_linear(
        cls,
        start: float = 0.00085,
        end: float = 0.012,
        steps: int = 1000,
        prediction: Prediction = "epsilon",
        zero_terminal_snr: bool = False,
    ):
        """The schedule of Stable Diffusion: sqrt(beta) is linear in t."""
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        alphas = torch.cumprod(1.0 - betas, 0)
        return cls(rescale_zero_terminal_snr(alphas) if zero_terminal_snr else alphas, prediction)

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether the last timestep is noise alone."""
        return float(self.alphas_cumprod[-1]) == 0

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def sigmas(self) -> Tensor:
        """sqrt((1 - abar) / abar), ascending and finite: the noise level of x_t / sqrt(abar_t)."""
        alphas = self.alphas_cumprod.clamp(min=_LEAST_ALPHA)
        return ((1 - alphas) / alphas) ** 0.5

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio abar / (1 - abar) of each timestep, descending; 0 at the end where that is pure noise."""
        return self.alphas_cumprod / (1 - self.alphas_cumprod)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t for latents and noise of shape (B, C, H, W) and integer timesteps (B,)."""
        alpha, sigma = self._factors(timesteps, latents)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model should predict, of the shape of `latents`."""
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = self._factors(timesteps, latents)
        return alpha * noise - sigma * latents

    def denoised(self, x: Tensor, predicted: Tensor, sigma: float) -> Tensor:
        """The x_0 that a prediction implies; x = x_0 + sigma · noise, that is x_t / sqrt(abar_t) (Karras et al. 2022, table 1)."""
        if self.prediction == "epsilon":
            return x - sigma * predicted
        return x / (sigma**2 + 1) - predicted * sigma / (sigma**2 + 1) ** 0.5

    def _factors(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (like.dim() - 1))
        alpha = self.alphas_cumprod.sqrt().to(like.device, like.dtype)
        sigma = (1 - self.alphas_cumprod).sqrt().to(like.device, like.dtype)
        return alpha[timesteps].view(shape), sigma[timesteps].view(shape)


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """abar (T,) with abar_T = 0 and abar_1 as it was: its root is shifted, then scaled (Lin et al. 2023, arXiv 2305.08891, alg. 1)."""
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
