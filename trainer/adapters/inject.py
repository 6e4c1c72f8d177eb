"""Joining adapters to the layers of a frozen model, and taking them off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import ModelFileError
from ..seeds import derive
from . import dora
from .base import Adapter, LayerShape, Tensors
from .dropout import DropoutRates, Drops, draw_drops


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a Linear or a convolution."""
    return cast("Tensor", module.weight)


class AdapterLayer:
    """The adapter of one layer: float32 master tensors, and the copies in the compute dtype that the forward pass reads.

    `tensors` are those of the algorithm and, with DoRA, the magnitude. At a strength s the layer's weight is W + s · (W' - W).
    """

    def __init__(self, adapter: Adapter, key: str, module: nn.Module, tensors: Tensors, alpha: float):
        self.adapter, self.key, self.module = adapter, key, module
        self.shape = LayerShape.of(module)
        self.alpha = alpha
        rank = adapter.rank_of(tensors)
        self.scale = 1.0 if rank is None else alpha / rank
        self.strength = 1.0
        device = self.weight.device
        self.tensors = {name: nn.Parameter(tensor.to(device, torch.float32)) for name, tensor in tensors.items()}
        self.live: dict[str, Tensor] = {}
        self.factor: Tensor | None = None  # DoRA's, made together with `live`
        self.drops: Drops | None = None  # None outside of training
        self.inner: Callable[[Tensor], Tensor] | None = None  # the forward of an adapter that was attached before

    @property
    def weight(self) -> Tensor:
        """The layer's own, as it is now."""
        return weight_of(self.module)

    @property
    def magnitude(self) -> Tensor | None:
        return self.tensors.get(dora.MAGNITUDE)

    def parts(self) -> dict[str, nn.Parameter]:
        """The algorithm's own tensors."""
        return {name: tensor for name, tensor in self.tensors.items() if name != dora.MAGNITUDE}

    def forward(self, x: Tensor) -> Tensor:
        """Takes the place of the layer's forward while the adapter is attached."""
        if not self.live or (self.drops is not None and self.drops.whole):
            return self._plain(x)
        if self.factor is not None:
            output = self._forward_dora(x, self.factor)
            return output if self.drops is None else self.drops.choose(output, lambda: self._plain(x))
        plain = self._plain(x)
        output = self._add(x, plain, self.scale * self.strength)
        return output if self.drops is None else self.drops.choose(output, lambda: plain)

    def _plain(self, x: Tensor) -> Tensor:
        return self.inner(x) if self.inner else type(self.module).forward(self.module, x)

    def _add(self, x: Tensor, output: Tensor, scale: float) -> Tensor:
        return self.adapter.add(self.shape, x, output, self.live, scale, self.drops)

    def _forward_dora(self, x: Tensor, factor: Tensor) -> Tensor:
        if dora.is_per_output(factor):
            output = dora.scale_outputs(self._add(x, self._plain(x), self.scale), cast("Tensor | None", self.module.bias), factor)
        else:
            scaled = dora.scale_inputs(x, factor, self.shape.groups)
            output = self._add(scaled, self._plain(scaled), self.scale)
        return output if self.strength == 1 else torch.lerp(self._plain(x), output, self.strength)

    def set_live(self, copies: dict[str, Tensor], draw: float | None) -> None:
        """Take new copies; `draw` is the random number of a training step."""
        step = draw is not None
        self.live = dict(self.adapter.active(copies, draw)) if step else copies
        if self.magnitude is not None:
            active = self.adapter.active(self.parts(), draw) if step else self.parts()
            with torch.no_grad():
                delta = self.adapter.delta(self.shape, active) * self.scale
            self.factor = dora.factors(self.weight, delta, self.magnitude)

    def delta(self) -> Tensor:
        """ΔW with its scale, float32; without DoRA and strength."""
        with torch.no_grad():
            return self.adapter.delta(self.shape, self.parts()) * self.scale

    @torch.no_grad()
    def change(self) -> Tensor:
        """What adding to the layer's weight makes it as it is with the adapter, float32."""
        delta = self.delta()
        if self.magnitude is not None:
            weight = self.weight.float()
            delta = (weight + delta) * dora.factors(weight, delta, self.magnitude) - weight
        return delta * self.strength


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
        """Let every layer's forward go through its adapter, and through those attached before, whose changes add up."""
        for layer in self.layers:
            layer.inner = layer.module.__dict__.get("forward")
            layer.module.forward = layer.forward

    def detach(self) -> None:
        """Give the model back without any adapters; safe to call twice."""
        for layer in self.layers:
            layer.inner = None
            layer.module.__dict__.pop("forward", None)

    def cast(self, dtype: torch.dtype, draw: float | None = None) -> None:
        """Make the copies that the next forward passes read. With gradients on, gradients flow back to the master tensors.

        Call it once per micro-batch: copies are stale after an optimizer step, and a backward pass consumes their graph.
        `draw` in [0, 1) is the random number of a training step, for algorithms that train a part of themselves at a time.
        """
        parts = [layer.parts() for layer in self.layers]
        tensors = [tensor for own in parts for tensor in own.values()]
        copies = iter(tensors if dtype == torch.float32 else _CastAll.apply(dtype, *tensors))
        for layer, own in zip(self.layers, parts, strict=True):
            layer.set_live({name: next(copies) for name in own}, draw)

    def drop(self, rates: DropoutRates, seeds: Sequence[int] | None) -> None:
        """Draw what the next forward pass drops for samples with these seeds; nothing where there are none or all rates are 0."""
        drops: Iterable[Drops | None] = [None] * len(self.layers)
        if seeds and rates != DropoutRates():
            sizes = [(layer.key, layer.adapter.rank_of(layer.parts()) or 0) for layer in self.layers]
            drops = draw_drops(rates, sizes, seeds, next(self.parameters()).device)
        for layer, drop in zip(self.layers, drops, strict=True):
            layer.drops = drop

    @torch.no_grad()
    def limit(self, max_norm: float) -> Tensor:
        """Scale each ΔW that is longer than `max_norm` down to it; returns how many were, without waiting for the device."""
        norms = torch.stack([layer.adapter.norm(layer.shape, layer.parts()) * layer.scale for layer in self.layers])
        for layer, factor in zip(self.layers, (max_norm / norms).clamp(max=1).unbind(), strict=True):
            layer.adapter.shrink(layer.parts(), factor)
        return (norms > max_norm).sum()

    def train(self, active: bool) -> None:
        """Let the master tensors have gradients, or keep them as they are."""
        for parameter in self.parameters():
            parameter.requires_grad_(active)

    def release(self) -> None:
        """Forget the copies: the model runs without adapters (strength 0) until the next `cast`."""
        for layer in self.layers:
            layer.live, layer.factor = {}, None

    def parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for layer in self.layers for parameter in layer.tensors.values())

    def state(self) -> dict[str, Tensor]:
        """Master tensors by full saved name, without alphas."""
        return {f"{layer.key}.{name}": tensor.detach() for layer in self.layers for name, tensor in layer.tensors.items()}

    def saved(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What a file holds: tensors in `dtype` on the CPU, and an alpha for each layer.

        Magnitudes stay float32: they scale whole columns of W, and half precision would change those more than ΔW does.
        """
        result = {
            name: tensor.to("cpu", torch.float32 if name.endswith(dora.MAGNITUDE) else dtype).contiguous()
            for name, tensor in self.state().items()
        }
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
        return [layer.key for layer in self.layers if any(not bool(tensor.any()) for tensor in layer.parts().values())]


def fresh_layers(
    adapter: Adapter, targets: Iterable[tuple[str, nn.Module]], rank: int, alpha: float, seed: int, with_magnitude: bool = False
) -> list[AdapterLayer]:
    """A new adapter for each (key, module), as DoRA `with_magnitude`; its start depends on the seed and the key alone."""
    layers = []
    for key, module in targets:
        generator = torch.Generator().manual_seed(derive(seed, "adapter", key))
        tensors = dict(adapter.init(LayerShape.of(module), rank, generator))
        if with_magnitude:
            tensors[dora.MAGNITUDE] = dora.magnitude_of(weight_of(module))
        layers.append(AdapterLayer(adapter, key, module, tensors, alpha))
    return layers
