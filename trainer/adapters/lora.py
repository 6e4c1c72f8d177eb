"""LoRA (Hu et al. 2021, arXiv 2106.09685): ΔW = up · down. On a convolution this is LoCon."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import LayerShape, Tensors

DOWN, UP = "lora_down.weight", "lora_up.weight"


class Lora:
    """down (rank, in[, k, k]) keeps the layer's kernel and stride, up (out, rank[, 1, 1]) is point-wise."""

    name = "lora"
    tensor_names = (DOWN, UP)

    def init(self, shape: LayerShape, rank: int, generator: torch.Generator) -> Tensors:
        """down as torch initialises a layer (uniform in ±1/sqrt(fan_in), which is Kaiming with a = sqrt 5), up zero."""
        down = torch.empty(rank, *shape.weight[1:])
        bound = 1 / math.sqrt(down[0].numel())
        down.uniform_(-bound, bound, generator=generator)
        up = torch.zeros(shape.outputs, rank, *([1] * (len(shape.weight) - 2)))
        return {DOWN: down, UP: up}

    def delta(self, shape: LayerShape, tensors: Tensors) -> Tensor:
        return (tensors[UP].flatten(1) @ tensors[DOWN].flatten(1)).reshape(shape.weight)

    def add(self, shape: LayerShape, x: Tensor, output: Tensor, tensors: Tensors, scale: float) -> Tensor:
        inner = shape.apply(x, tensors[DOWN])
        if shape.kernel is None:
            flat = torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), tensors[UP].t(), alpha=scale)
            return flat.view(output.shape)
        return torch.add(output, F.conv2d(inner, tensors[UP]), alpha=scale)

    def rank_of(self, tensors: Tensors) -> int:
        return tensors[DOWN].shape[0]
