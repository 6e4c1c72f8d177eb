"""LoRA (Hu et al. 2021, arXiv 2106.09685): ΔW = up · down. On a convolution this is LoCon (LyCORIS, arXiv 2309.14859)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Adapter, LayerShape, Tensors, tucker, uniform
from .dropout import Drops, by_row

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

    def add(self, shape: LayerShape, x: Tensor, output: Tensor, tensors: Tensors, scale: float, drops: Drops | None = None) -> Tensor:
        if shape.groups > 1:  # down would see the inputs of one group only, up all of them
            return super().add(shape, x, output, tensors, scale, drops)
        if shape.kernel is None:
            inner = _dropped(F.linear(x, tensors[DOWN]), drops, -1)
            flat = torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), tensors[UP].t(), alpha=scale)
            return flat.view(output.shape)
        inner = shape.apply(F.conv2d(x, tensors[DOWN]), tensors[MID]) if MID in tensors else shape.apply(x, tensors[DOWN])
        return torch.add(output, F.conv2d(_dropped(inner, drops, 1), tensors[UP]), alpha=scale)

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


def _dropped(inner: Tensor, drops: Drops | None, dim: int) -> Tensor:
    """Activations between down and up, whose ranks, or the first of them, are in `dim`, as sd-scripts drops them: numbers, then ranks.

    A text encoder reads a long caption in several parts; then a sample has several rows.
    """
    if drops is None:
        return inner
    inner = drops.of(inner)
    if drops.ranks is None:
        return inner
    shape = [len(inner)] + [1] * (inner.dim() - 1)
    shape[dim] = inner.shape[dim]
    return inner * by_row(drops.ranks[:, : inner.shape[dim]], inner).to(inner.dtype).view(shape)
