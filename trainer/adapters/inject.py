"""Joining adapters to the layers of a frozen model, and taking them off again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelFileError
from ..seeds import derive
from .base import Adapter, LayerShape, Tensors


class AdapterLayer:
    """The adapter of one layer: float32 master tensors, and the copies in the compute dtype that the forward pass reads."""

    def __init__(self, adapter: Adapter, key: str, module: nn.Module, tensors: Tensors, alpha: float):
        self.adapter, self.key, self.module = adapter, key, module
        self.shape = LayerShape.of(module)
        self.alpha = alpha
        self.scale = alpha / adapter.rank_of(tensors)
        device = next(module.parameters()).device
        self.tensors = {name: nn.Parameter(tensor.to(device, torch.float32)) for name, tensor in tensors.items()}
        self.live: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Takes the place of the layer's forward while the adapter is attached."""
        output = type(self.module).forward(self.module, x)
        return self.adapter.add(self.shape, x, output, self.live, self.scale) if self.live else output

    def delta(self) -> Tensor:
        """ΔW with its scale, float32."""
        with torch.no_grad():
            return self.adapter.delta(self.shape, self.tensors) * self.scale


class _CastAll(torch.autograd.Function):
    """Copies of many tensors in another dtype, as one operation, so that no layer casts its own weights at each use."""

    @staticmethod
    def forward(_ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
        torch._foreach_copy_(copies, list(tensors))
        return tuple(copies)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        present = [gradient for gradient in gradients if gradient is not None]
        wide = [torch.empty_like(gradient, dtype=torch.float32) for gradient in present]
        if present:
            torch._foreach_copy_(wide, present)
        back = iter(wide)
        return None, *(None if gradient is None else next(back) for gradient in gradients)


class AdapterSet:
    """All adapters of a model."""

    def __init__(self, layers: Iterable[AdapterLayer]):
        self.layers = list(layers)

    def attach(self) -> None:
        """Let every layer's forward go through its adapter."""
        for layer in self.layers:
            layer.module.forward = layer.forward

    def detach(self) -> None:
        """Give the model back as it was; safe to call twice."""
        for layer in self.layers:
            layer.module.__dict__.pop("forward", None)

    def cast(self, dtype: torch.dtype) -> None:
        """Make the copies that the next forward passes read. With gradients on, gradients flow back to the master tensors.

        Call it once per micro-batch: copies are stale after an optimizer step, and a backward pass consumes their graph.
        """
        places = [(layer, name) for layer in self.layers for name in layer.tensors]
        tensors = [layer.tensors[name] for layer, name in places]
        copies = tensors if dtype == torch.float32 else _CastAll.apply(dtype, *tensors)
        for (layer, name), copy in zip(places, copies, strict=True):
            layer.live[name] = copy

    def release(self) -> None:
        """Forget the copies: the model runs without adapters (strength 0) until the next `cast`."""
        for layer in self.layers:
            layer.live = {}

    def parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for layer in self.layers for parameter in layer.tensors.values())

    def state(self) -> dict[str, Tensor]:
        """Master tensors by full saved name, without alphas."""
        return {f"{layer.key}.{name}": tensor.detach() for layer in self.layers for name, tensor in layer.tensors.items()}

    def saved(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What a file holds: tensors in `dtype` on the CPU, and an alpha for each layer."""
        result = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in self.state().items()}
        return result | {f"{layer.key}.alpha": torch.tensor(layer.alpha, dtype=dtype) for layer in self.layers}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the master tensors from `state()` of an equal set."""
        own = self.state()
        if set(own) != set(tensors):
            different = sorted(set(own) ^ set(tensors))
            raise ModelFileError(f"the saved adapter does not fit: {len(different)} tensors differ, for example {different[0]}")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

    def silent(self) -> list[str]:
        """Keys of layers whose ΔW is zero: they have learned nothing."""
        return [layer.key for layer in self.layers if any(not bool(tensor.any()) for tensor in layer.tensors.values())]


def fresh_layers(adapter: Adapter, targets: Iterable[tuple[str, nn.Module]], rank: int, alpha: float, seed: int) -> list[AdapterLayer]:
    """A new adapter for each (key, module); its start depends on the seed and the key alone."""
    layers = []
    for key, module in targets:
        generator = torch.Generator().manual_seed(derive(seed, "adapter", key))
        layers.append(AdapterLayer(adapter, key, module, adapter.init(LayerShape.of(module), rank, generator), alpha))
    return layers
