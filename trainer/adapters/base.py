"""What an adapter algorithm supplies, and the shape of the layer it joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tensors = dict[str, Tensor]  # tensor suffix in saved files, for example "lora_down.weight" -> tensor


@dataclass(frozen=True)
class LayerShape:
    """A Linear or Conv2d layer without its weights."""

    outputs: int
    inputs: int  # per group
    kernel: tuple[int, int] | None = None  # None for Linear
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, module: nn.Module) -> LayerShape:
        if isinstance(module, nn.Linear):
            return cls(module.out_features, module.in_features)
        if isinstance(module, nn.Conv2d):
            return cls(
                module.out_channels,
                module.in_channels // module.groups,
                tuple(module.kernel_size),
                tuple(module.stride),
                module.padding if isinstance(module.padding, str) else tuple(module.padding),
                tuple(module.dilation),
                module.groups,
            )
        raise TypeError(f"adapters join Linear and Conv2d layers, not {type(module).__name__}")

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the layer's weight."""
        return (self.outputs, self.inputs, *(self.kernel or ()))

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's operation, without bias, with another weight of shape (any, *self.weight[1:])."""
        if self.kernel is None:
            return F.linear(x, weight)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


class Adapter(Protocol):
    """One algorithm: pure functions of a layer's shape and its adapter tensors."""

    name: str
    tensor_names: tuple[str, ...]  # suffixes in saved files

    def init(self, shape: LayerShape, rank: int, generator: torch.Generator) -> Tensors:
        """Fresh float32 tensors that change nothing (ΔW = 0)."""
        ...

    def delta(self, shape: LayerShape, tensors: Tensors) -> Tensor:
        """ΔW at scale 1, of shape `shape.weight`."""
        ...

    def add(self, shape: LayerShape, x: Tensor, output: Tensor, tensors: Tensors, scale: float) -> Tensor:
        """`output` + scale · op(x, ΔW), without building ΔW where that is cheaper."""
        ...

    def rank_of(self, tensors: Tensors) -> int:
        """The rank that the scale alpha/rank divides by."""
        ...
