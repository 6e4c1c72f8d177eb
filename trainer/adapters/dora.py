"""DoRA (Liu et al. 2024, arXiv 2402.09353): any adapter gives the direction of the new weight, its length is trained beside it.

W' = m · (W + ΔW) / ‖W + ΔW‖, the norm for each input column, m of shape (1, in[, 1, 1]) starting as ‖W‖. The norm counts as a
constant in the backward pass (section 4.3). In this form ComfyUI computes the same from the file. A magnitude for each output,
(out, 1[, 1, 1]), comes only from other programs' files; ComfyUI divides it by the norm of the unchanged W, and so does this.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAGNITUDE = "dora_scale"


def magnitude_of(weight: Tensor) -> Tensor:
    """‖W‖ of each input column, (1, in[, 1, 1]) float32."""
    return _norms(weight.detach().float(), per_output=False)


def shapes_of(weight: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The magnitude's shape for each input, and for each output."""
    ones = (1,) * (len(weight) - 2)
    return (1, weight[1], *ones), (weight[0], 1, *ones)


def factors(weight: Tensor, delta: Tensor, magnitude: Tensor) -> Tensor:
    """What columns (or rows) of W + ΔW are multiplied by, in float32 and the shape of `magnitude`."""
    per_output = is_per_output(magnitude)
    with torch.no_grad():
        direction = weight.float() if per_output else weight.float() + delta
        norms = _norms(direction, per_output).clamp_min(torch.finfo(torch.float32).eps)
    return magnitude / norms


def is_per_output(magnitude: Tensor) -> bool:
    return magnitude.shape[1] == 1 and magnitude.shape[0] > 1


def scale_inputs(x: Tensor, factor: Tensor, groups: int) -> Tensor:
    """x with each channel multiplied by the factor of its column; multiplied in float32, since a bfloat16 factor has 2 digits."""
    per_channel = factor.flatten() if factor.dim() == 2 else factor.repeat(1, groups, 1, 1)
    return (x * per_channel).to(x.dtype)


def scale_outputs(output: Tensor, bias: Tensor | None, factor: Tensor) -> Tensor:
    """`output` with each channel multiplied by the factor of its row; the bias is no part of the weight and stays."""
    per_channel = factor.flatten() if factor.dim() == 2 else factor.transpose(0, 1)
    scaled = output * per_channel
    if bias is not None:
        scaled = scaled + bias.reshape(per_channel.shape) * (1 - per_channel)
    return scaled.to(output.dtype)


def _norms(weight: Tensor, per_output: bool) -> Tensor:
    axes = [axis for axis in range(weight.dim()) if axis != (0 if per_output else 1)]
    return torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
