"""What an adapter algorithm supplies, and the shape of the layer it joins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .dropout import Drops

Tensors = Mapping[str, Tensor]  # tensor suffix in saved files, for example "lora_down.weight" -> tensor


@dataclass(frozen=True)
class LayerShape:
    """A Linear or Conv2d layer without its weights."""

    outputs: int
    inputs: int  # per group
    kernel: tuple[int, int] | None = None  # None for Linear
    stride: tuple[int, int] = (1, 1)
    padding: Any = (0, 0)  # two numbers, or "same" or "valid"
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, module: nn.Module) -> LayerShape:
        if isinstance(module, nn.Linear):
            return cls(module.out_features, module.in_features)
        if isinstance(module, nn.Conv2d):
            (kernel, stride, padding, dilation) = (
                _pair(getattr(module, name)) for name in ("kernel_size", "stride", "padding", "dilation")
            )
            return cls(module.out_channels, module.in_channels // module.groups, kernel, stride, padding, dilation, module.groups)
        raise TypeError(f"adapters join Linear and Conv2d layers, not {type(module).__name__}")

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the layer's weight."""
        return (self.outputs, self.inputs, *(self.kernel or ()))

    @property
    def spatial(self) -> bool:
        """Whether it is a convolution that looks at more than one place."""
        return self.kernel is not None and self.kernel != (1, 1)

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's operation, without bias, with another weight of shape (any, *self.weight[1:])."""
        if self.kernel is None:
            return F.linear(x, weight)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


def _pair(value: Any) -> Any:
    return value if isinstance(value, str) else (int(value[0]), int(value[1]))


class Adapter(Protocol):
    """One algorithm: pure functions of a layer's shape and its adapter tensors.

    An algorithm is a frozen dataclass whose fields are its own options, named as in the configuration's `method` section.
    ΔW is linear in each of its tensors, so that it is zero where one of them is.
    """

    name: ClassVar[str]
    up_names: ClassVar[tuple[str, ...]] = ()  # tensors to which LoRA+ gives a higher rate; empty where that has no meaning
    drops_ranks: ClassVar[bool] = False  # whether it has activations of ranks to drop
    layouts: ClassVar[tuple[frozenset[str], ...]]  # every set of tensor suffixes that a layer can have in a file

    def init(self, shape: LayerShape, rank: int, generator: torch.Generator) -> Tensors:
        """Fresh float32 tensors that change nothing (ΔW = 0)."""
        ...

    def shapes(self, shape: LayerShape, tensors: Tensors) -> dict[str, tuple[int, ...]]:
        """The shapes that tensors of these ranks have for this layer."""
        ...

    def delta(self, shape: LayerShape, tensors: Tensors) -> Tensor:
        """ΔW at scale 1, of shape `shape.weight`."""
        ...

    def rank_of(self, tensors: Tensors) -> int | None:
        """The rank that the scale alpha/rank divides by, or None where the scale is 1 whatever alpha is."""
        ...

    def add(self, shape: LayerShape, x: Tensor, output: Tensor, tensors: Tensors, scale: float, drops: Drops | None = None) -> Tensor:
        """`output` + scale · op(x, ΔW). An algorithm overrides it where that is cheaper without building ΔW.

        Without activations of ranks the numbers that are dropped are those of `x`.
        ΔW is as large as the layer's weight, so it is built again for the backward pass instead of being kept for it.
        """

        assert drops is None or drops.ranks is None, f"{self.name} drops no ranks"
        dropped = x if drops is None else drops.of(x)

        def change(x: Tensor, *parts: Tensor) -> Tensor:
            return shape.apply(x, self.delta(shape, dict(zip(tensors, parts, strict=True))))

        added: Any = checkpoint(change, dropped, *tensors.values(), use_reentrant=False, preserve_rng_state=False)
        return torch.add(output, added, alpha=scale)

    def norm(self, shape: LayerShape, tensors: Tensors) -> Tensor:
        """The Frobenius norm of ΔW at scale 1."""
        return torch.linalg.vector_norm(self.delta(shape, tensors))

    def shrink(self, tensors: Tensors, factor: Tensor) -> None:
        """Multiply ΔW by a factor between 0 and 1, in place, evenly in all tensors; 1 changes no bit."""
        for tensor in tensors.values():
            tensor.mul_(factor ** (1 / len(tensors)))

    def active(self, tensors: Tensors, draw: float) -> Tensors:  # noqa: ARG002
        """The tensors that take part in a training step; `draw` is the step's random number in [0, 1)."""
        return tensors

    def uses_alpha(self, shape: LayerShape, rank: int) -> bool:  # noqa: ARG002
        """Whether alpha changes the strength on such a layer."""
        return True


def uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """As torch starts a layer: uniform in ±1/sqrt(fan_in), which is Kaiming with a = sqrt 5."""
    tensor = torch.empty(shape)
    bound = 1 / math.sqrt(tensor[0].numel())
    return tensor.uniform_(-bound, bound, generator=generator)


def normal(*shape: int, std: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).normal_(std=std, generator=generator)


def tucker(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The kernel (a, b, k, k) whose core (m, n, k, k) is widened by left (m, a) and right (n, b)."""
    return torch.einsum("mnkl,ma,nb->abkl", core, left, right)
