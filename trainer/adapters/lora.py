"""LoRA (Hu et al. 2021, arXiv 2106.09685): ΔW = up · down. On a convolution this is LoCon (LyCORIS, arXiv 2309.14859)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Adapter, LayerShape, Tensors, tucker, uniform
from .dropout import by_row

DOWN, MID, UP = "lora_down.weight", "lora_mid.weight", "lora_up.weight"


@dataclass(frozen=True)
class Lora(Adapter):
    """down (rank, in[, k, k]) keeps the layer's kernel and stride, up (out, rank[, 1, 1]) is point-wise.

    Tucker form on a convolution: down (rank, in, 1, 1), mid (rank, rank, k, k) with kernel and stride, up (out, rank, 1, 1).
    """

    tucker: bool = False

    name = "lora"
    up_names = (UP,)
    drops_ranks = True
    layouts = (frozenset({DOWN, UP}), frozenset({DOWN, MID, UP}))

    def init(self, shape: LayerShape, rank: int, generator: torch.Generator) -> Tensors:
        """down (and mid) as torch initialises a layer, up zero."""
        sizes = _shapes(shape, rank, self.tucker and shape.spatial)
        return {name: torch.zeros(size) if name == UP else uniform(*size, generator=generator) for name, size in sizes.items()}

    def shapes(self, shape: LayerShape, tensors: Tensors) -> dict[str, tuple[int, ...]]:
        return _shapes(shape, tensors[DOWN].shape[0], MID in tensors)

    def delta(self, shape: LayerShape, tensors: Tensors) -> Tensor:
        up, down = tensors[UP].flatten(1), tensors[DOWN].flatten(1)
        if MID in tensors:
            return tucker(tensors[MID], up.t(), down)
        return (up @ down).reshape(shape.weight)

    def add(self, shape: LayerShape, x: Tensor, output: Tensor, tensors: Tensors, scale: float, ranks: Tensor | None = None) -> Tensor:
        if shape.groups > 1:  # down would see the inputs of one group only, up all of them
            return super().add(shape, x, output, tensors, scale, ranks)
        if shape.kernel is None:
            inner = F.linear(x, tensors[DOWN])
            if ranks is not None:
                inner = inner * _spread(ranks, inner, -1)
            flat = torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), tensors[UP].t(), alpha=scale)
            return flat.view(output.shape)
        inner = shape.apply(F.conv2d(x, tensors[DOWN]), tensors[MID]) if MID in tensors else shape.apply(x, tensors[DOWN])
        if ranks is not None:
            inner = inner * _spread(ranks, inner, 1)
        return torch.add(output, F.conv2d(inner, tensors[UP]), alpha=scale)

    def norm(self, shape: LayerShape, tensors: Tensors) -> Tensor:
        """‖up · down‖² is the trace of (upᵀ up)(down downᵀ), two small matrices."""
        if MID in tensors:
            return super().norm(shape, tensors)
        up, down = tensors[UP].flatten(1), tensors[DOWN].flatten(1)
        return ((up.t() @ up) * (down @ down.t())).sum().clamp(min=0).sqrt()

    def rank_of(self, tensors: Tensors) -> int:
        return tensors[DOWN].shape[0]


def _shapes(shape: LayerShape, rank: int, mid: bool) -> dict[str, tuple[int, ...]]:
    point, kernel = (1,) * (len(shape.weight) - 2), shape.weight[2:]
    down = {DOWN: (rank, shape.inputs, *(point if mid else kernel))}
    return down | ({MID: (rank, rank, *kernel)} if mid else {}) | {UP: (shape.outputs, rank, *point)}


def _spread(ranks: Tensor, inner: Tensor, dim: int) -> Tensor:
    """Factors (B, rank) in a shape that multiplies activations whose ranks, or the first of them, are in `dim`.

    A text encoder reads a long caption in several parts; then a sample has several rows.
    """
    rows = by_row(ranks[:, : inner.shape[dim]], inner).to(inner.dtype)
    shape = [len(inner)] + [1] * (inner.dim() - 1)
    shape[dim] = inner.shape[dim]
    return rows.view(shape)
