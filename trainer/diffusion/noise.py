"""Noise that differs from independent normal numbers. Every function treats each sample apart from its batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def offset_noise(noise: Tensor, shift: Tensor, strength: Tensor) -> Tensor:
    """Noise (B, C, h, w) with a normal number per sample and channel, `shift` (B, C, 1, 1), added everywhere.

    Without it a model never learns to change the mean of a picture (Guttenberg 2023, "Diffusion with Offset Noise").
    """
    return noise + strength * shift


def adaptive_strength(strength: Tensor, latents: Tensor, scale: float) -> Tensor:
    """Offset strength (B, C, 1, 1), at least 0: `strength` plus `scale` times the size of each channel's mean."""
    return (strength + scale * latents.mean((2, 3), keepdim=True).abs()).clamp(min=0)


def pyramid(shape: tuple[int, ...], iterations: int, discount: float, generator: torch.Generator) -> Tensor:
    """The sum (C, h, w) of ever coarser noise that one sample gets: level i has sides h / r^i and counts discount^i.

    r is drawn from [2, 4) for each level, and the last is the first with a side of one pixel (Whitaker 2023, "Multi-Resolution
    Noise for Diffusion Model Training"). Level 0 has full size.
    """
    channels, height, width = shape
    total = torch.zeros(1, *shape)
    for level in range(iterations):
        ratio = (2 + 2 * float(torch.rand((), generator=generator))) ** level
        sides = max(1, int(height / ratio)), max(1, int(width / ratio))
        coarse = torch.randn(1, channels, *sides, generator=generator)
        total += interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False) * discount**level
        if 1 in sides:
            break
    return total[0]


def multires_noise(noise: Tensor, levels: Tensor) -> Tensor:
    """Noise (B, C, h, w) plus its levels, scaled back to a standard deviation of 1 in each sample."""
    mixed = noise + levels
    return mixed / mixed.std((1, 2, 3), keepdim=True)


def perturbed(noise: Tensor, extra: Tensor, gamma: Tensor) -> Tensor:
    """The noise of the model's input; its target keeps the noise without `extra` (Ning et al. 2023, arXiv 2301.11706)."""
    return noise + gamma * extra
