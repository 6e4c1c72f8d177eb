"""How large an error is, and its mean over a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """`of` maps differences (B, C, h, w) and a threshold c (B, 1, 1, 1), or None, to errors of the same shape."""

    of: Callable[[Tensor, Tensor | None], Tensor]
    has_threshold: bool = False


def _pseudo_huber(difference: Tensor, c: Tensor | None) -> Tensor:
    """sqrt(d² + c²) - c: like d² / 2c where d is small, like |d| where it is large (Charbonnier et al. 1997).

    Written without the difference, which would lose the digits of small errors.
    """
    square, threshold = difference.square(), _needed(c)
    return square / ((square + threshold.square()).sqrt() + threshold)


def _needed(c: Tensor | None) -> Tensor:
    assert c is not None, "this loss has a threshold"
    return c


# The factors of the last two: huber is like the square near 0, smooth_l1 like twice the absolute value far from 0.
LOSSES: dict[str, Loss] = {
    "l2": Loss(lambda d, _: d.square()),
    "l1": Loss(lambda d, _: d.abs()),
    "huber": Loss(lambda d, c: 2 * _needed(c) * _pseudo_huber(d, c), has_threshold=True),
    "smooth_l1": Loss(lambda d, c: 2 * _pseudo_huber(d, c), has_threshold=True),
}


def _exponential(sigmas: Tensor, c: float, scale: float) -> Tensor:
    return scale * c ** (torch.arange(len(sigmas), dtype=sigmas.dtype) / len(sigmas))


def _snr(sigmas: Tensor, c: float, _scale: float) -> Tensor:
    return (1 - c) / (1 + sigmas) ** 2 + c


def _constant(sigmas: Tensor, c: float, scale: float) -> Tensor:
    return torch.full_like(sigmas, c * scale)


# Thresholds (T,) from noise levels (T,), c and scale (Khrapov et al. 2024, arXiv 2403.16728): where noise is weak, an error is
# rather one of the model; where it is strong, rather one of the picture.
HUBER_SCHEDULES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "snr": _snr,
    "exponential": _exponential,
    "constant": _constant,
}


def mean_error(errors: Tensor, mask: Tensor | None) -> Tensor:
    """Mean (B,) of errors (B, C, h, w); with a mask (B, 1, h, w) in [0, 1], over the masked area alone, and 0 where that is empty."""
    if mask is None:
        return errors.flatten(1).mean(1)
    area = mask.flatten(1).sum(1) * errors.shape[1]
    return (errors * mask).flatten(1).sum(1) / area.clamp(min=1e-6)
