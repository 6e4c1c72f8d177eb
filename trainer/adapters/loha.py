"""LoHa (FedPara: Hyeon-Woo et al. 2022, arXiv 2108.06098): ΔW is the entry-wise product of two low-rank matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Adapter, LayerShape, Tensors, normal, tucker

W1_A, W1_B, W2_A, W2_B, T1, T2 = "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"


@dataclass(frozen=True)
class Loha(Adapter):
    """ΔW = (w1_a w1_b) ∘ (w2_a w2_b) with a (out, rank), b (rank, in · k · k): of rank up to rank².

    Tucker form on a convolution (the paper's proposition 3): a (rank, out), b (rank, in), t (rank, rank, k, k).
    """

    tucker: bool = False

    name = "loha"
    layouts = (frozenset({W1_A, W1_B, W2_A, W2_B}), frozenset({W1_A, W1_B, W2_A, W2_B, T1, T2}))

    def init(self, shape: LayerShape, rank: int, generator: torch.Generator) -> Tensors:
        """LyCORIS' start: b of deviation 1, w1_a and the cores 0.1, w2_a zero."""
        deviations = {W1_A: 0.1, W1_B: 1.0, W2_B: 1.0, T1: 0.1, T2: 0.1}
        sizes = _shapes(shape, rank, self.tucker and shape.spatial)
        return {
            name: torch.zeros(size) if name == W2_A else normal(*size, std=deviations[name], generator=generator)
            for name, size in sizes.items()
        }

    def shapes(self, shape: LayerShape, tensors: Tensors) -> dict[str, tuple[int, ...]]:
        return _shapes(shape, tensors[W1_B].shape[0], T1 in tensors)

    def delta(self, shape: LayerShape, tensors: Tensors) -> Tensor:
        if T1 in tensors:
            first, second = (tucker(*(tensors[name] for name in names)) for names in ((T1, W1_A, W1_B), (T2, W2_A, W2_B)))
        else:
            first, second = tensors[W1_A] @ tensors[W1_B], tensors[W2_A] @ tensors[W2_B]
        return (first * second).reshape(shape.weight)

    def rank_of(self, tensors: Tensors) -> int:
        return tensors[W1_B].shape[0]


def _shapes(shape: LayerShape, rank: int, cores: bool) -> dict[str, tuple[int, ...]]:
    if cores:
        core, a, b = (rank, rank, *shape.weight[2:]), (rank, shape.outputs), (rank, shape.inputs)
        return {W1_A: a, W1_B: b, W2_A: a, W2_B: b, T1: core, T2: core}
    a, b = (shape.outputs, rank), (rank, torch.Size(shape.weight[1:]).numel())
    return {W1_A: a, W1_B: b, W2_A: a, W2_B: b}
