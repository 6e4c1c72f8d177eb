"""LoKr (LyCORIS: Yeh et al. 2023, arXiv 2309.14859): ΔW is the Kronecker product of a small and a larger matrix."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Adapter, LayerShape, Tensors, tucker, uniform
from .dropout import Drops

W1, W1_A, W1_B = "lokr_w1", "lokr_w1_a", "lokr_w1_b"
W2, W2_A, W2_B, T2 = "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"
_LEFT = ({W1}, {W1_A, W1_B})
_RIGHT = ({W2}, {W2_A, W2_B}, {W2_A, W2_B, T2})


@dataclass(frozen=True)
class Lokr(Adapter):
    """ΔW = w1 ⊗ w2 with w1 (out_l, in_m) and w2 (out_k, in_n[, k, k]), where out = out_l · out_k and in = in_m · in_n.

    w2 is decomposed into w2_a (out_k, rank) and w2_b (rank, in_n · k · k), unless rank reaches half of its longer side; then it is
    whole. w1 is whole, or by the same rule w1_a w1_b with `lokr_decompose_both`. With both whole alpha has no effect: the scale is 1.

    The Tucker form of a convolution, w2_a (rank, out_k), w2_b (rank, in_n), t2 (rank, rank, k, k), is read from files but never
    made: ComfyUI fails on it (torch.kron of a tensor that is not contiguous) and leaves such layers out, with an error in its log.
    """

    lokr_factor: int = -1
    lokr_decompose_both: bool = False

    name = "lokr"
    layouts = tuple(frozenset(left | right) for left, right in product(_LEFT, _RIGHT))

    def init(self, shape: LayerShape, rank: int, generator: torch.Generator) -> Tensors:
        """As torch starts a layer, but the last factor zero."""
        sizes = self._sizes(shape, rank)
        zero = W2_B if W2_B in sizes else W2
        return {name: torch.zeros(size) if name == zero else uniform(*size, generator=generator) for name, size in sizes.items()}

    def _sizes(self, shape: LayerShape, rank: int) -> dict[str, tuple[int, ...]]:
        (out_l, out_k), (in_m, in_n) = split(shape.outputs, self.lokr_factor), split(shape.inputs, self.lokr_factor)
        left = (W1_A, W1_B) if self.lokr_decompose_both and rank < max(out_l, in_m) / 2 else (W1,)
        right = (W2_A, W2_B) if rank < max(out_k, in_n) / 2 else (W2,)
        return _shapes(shape, (*left, *right), (out_l, in_m), (out_k, in_n), rank, rank)

    def shapes(self, shape: LayerShape, tensors: Tensors) -> dict[str, tuple[int, ...]]:
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        left = found[W1] if W1 in found else (found[W1_A][0], found[W1_B][1])
        if W2 in found:
            right = found[W2]
        elif T2 in found:
            right = (found[W2_A][1], found[W2_B][1])
        else:
            right = (found[W2_A][0], found[W2_B][1] // torch.Size(shape.weight[2:]).numel())
        ranks = (found[name][0] if name in found else 0 for name in (W1_B, W2_B))
        fitting_left, fitting_right = ((shape.outputs // max(1, other[0]), shape.inputs // max(1, other[1])) for other in (right, left))
        return _shapes(shape, tuple(found), fitting_left, fitting_right, *ranks)

    def delta(self, shape: LayerShape, tensors: Tensors) -> Tensor:
        left, right = _left(tensors), _right(shape, tensors)
        return torch.kron(left.reshape(*left.shape, *(1 for _ in right.shape[2:])), right).reshape(shape.weight)

    def add(self, shape: LayerShape, x: Tensor, output: Tensor, tensors: Tensors, scale: float, drops: Drops | None = None) -> Tensor:
        """The inputs as in_m blocks of in_n: w2 acts inside each block, w1 between them."""
        if shape.groups > 1:
            return super().add(shape, x, output, tensors, scale, drops)
        left, x = _left(tensors), x if drops is None else drops.of(x)
        if shape.kernel is None:
            inner = _apply_right(shape, x.unflatten(-1, (left.shape[1], -1)), tensors)
            change = F.linear(inner.transpose(-1, -2), left).transpose(-1, -2).flatten(-2)
        else:
            inner = _apply_right(shape, x.reshape(len(x) * left.shape[1], -1, *x.shape[2:]), tensors)
            change = (left @ inner.reshape(len(x), left.shape[1], -1)).reshape(output.shape)
        return torch.add(output, change, alpha=scale)

    def rank_of(self, tensors: Tensors) -> int | None:
        return next((tensors[name].shape[0] for name in (W2_B, W1_B) if name in tensors), None)

    def uses_alpha(self, shape: LayerShape, rank: int) -> bool:
        return {W1_B, W2_B} & set(self._sizes(shape, rank)) != set()


def split(size: int, factor: int) -> tuple[int, int]:
    """`size` as a product, the smaller number first: `factor` is one of the two where it divides `size`.

    Else the smaller is the largest divisor up to `factor` and the square root; a factor of -1 is no limit.
    """
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    limit = min(factor if factor > 0 else size, int(size**0.5))
    small = next(number for number in range(limit, 0, -1) if size % number == 0)
    return small, size // small


def _shapes(
    shape: LayerShape, names: tuple[str, ...], left: tuple[int, ...], right: tuple[int, ...], left_rank: int, right_rank: int
) -> dict[str, tuple[int, ...]]:
    kernel = shape.weight[2:]
    if T2 in names:
        a, b = (right_rank, right[0]), (right_rank, right[1])
    else:
        a, b = (right[0], right_rank), (right_rank, right[1] * torch.Size(kernel).numel())
    known = {W1: left[:2], W1_A: (left[0], left_rank), W1_B: (left_rank, left[1])}
    known |= {W2: (*right[:2], *kernel), W2_A: a, W2_B: b, T2: (right_rank, right_rank, *kernel)}
    return {name: known[name] for name in names}


def _left(tensors: Tensors) -> Tensor:
    return tensors[W1] if W1 in tensors else tensors[W1_A] @ tensors[W1_B]


def _right(shape: LayerShape, tensors: Tensors) -> Tensor:
    """w2 of shape (out_k, in_n[, k, k])."""
    if W2 in tensors:
        return tensors[W2]
    if T2 in tensors:
        return tucker(tensors[T2], tensors[W2_A], tensors[W2_B]).contiguous()  # torch.kron needs it
    whole = tensors[W2_A] @ tensors[W2_B]
    return whole.reshape(len(whole), -1, *shape.weight[2:])


def _apply_right(shape: LayerShape, x: Tensor, tensors: Tensors) -> Tensor:
    """op(x, w2) by way of its rank where it is decomposed."""
    if W2 in tensors:
        return shape.apply(x, tensors[W2])
    a, b = tensors[W2_A], tensors[W2_B]
    if shape.kernel is None:
        return F.linear(F.linear(x, b), a)
    if T2 in tensors:
        return F.conv2d(shape.apply(F.conv2d(x, b[..., None, None]), tensors[T2]), a.t()[..., None, None])
    return F.conv2d(shape.apply(x, b.reshape(len(b), -1, *shape.kernel)), a[..., None, None])
