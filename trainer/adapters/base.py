"""What an adapter algorithm supplies, and the shape of the layer it joins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's operation, without bias, with another weight of shape (any, *self.weight[1:])."""
        if self.kernel is None:
            return F.linear(x, weight)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


def _pair(value: Any) -> Any:
    return value if isinstance(value, str) else (int(value[0]), int(value[1]))


class Adapter(Protocol):
    """One algorithm: pure functions of a layer's shape and its adapter tensors."""

    @property
    def name(self) -> str: ...

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Suffixes in saved files."""
        ...

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
