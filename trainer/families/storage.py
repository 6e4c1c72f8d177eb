"""Frozen weights in fewer bits than they are computed with, or in the computer's memory instead of the device's.

A stored layer keeps no weight of its own between uses: forward and backward passes each make it anew, so that autograd holds
nothing of it either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST_SIDE = 64
"""Layers with fewer inputs or outputs, the first and the last among them, are worth more in precision than in memory."""

Stored = Mapping[str, Tensor]


@dataclass(frozen=True)
class Storage:
    """A way to keep a weight. `unpack` gives a weight of the packed one's shape in the dtype of computation."""

    pack: Callable[[Tensor], Stored]
    unpack: Callable[[Stored, torch.Size, torch.dtype], Tensor]


def _rows(dtype: torch.dtype, largest: float) -> Storage:
    """Each output's weights with a scale of their own, which takes the largest to the largest number of `dtype`."""

    def pack(weight: Tensor) -> Stored:
        rows = weight.flatten(1).float()
        scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / largest
        scaled = rows / scale
        return {"values": (scaled if dtype.is_floating_point else scaled.round()).to(dtype), "scale": scale}

    def unpack(stored: Stored, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        return (stored["values"].to(dtype) * stored["scale"].to(dtype)).view(shape)

    return Storage(pack, unpack)


def _nf4() -> Storage:
    """4-bit NormalFloat in blocks of 64 with one scale each (Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes."""

    def pack(weight: Tensor) -> Stored:
        from bitsandbytes.functional import quantize_4bit

        values, state = quantize_4bit(weight.flatten(1).contiguous(), quant_type="nf4", blocksize=64)
        return {"values": values, "scale": state.absmax}

    def unpack(stored: Stored, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        flat = torch.Size((shape[0], shape[1:].numel()))
        state = QuantState(stored["scale"], flat, blocksize=64, quant_type="nf4", dtype=dtype)
        return dequantize_4bit(stored["values"], state).view(shape)

    return Storage(pack, unpack)


STORAGES: dict[str, Storage] = {
    "full": Storage(lambda weight: {"values": weight.detach()}, lambda stored, _shape, _dtype: stored["values"]),
    "fp8": _rows(torch.float8_e4m3fn, 448.0),
    "int8": _rows(torch.int8, 127.0),
    "nf4": _nf4(),
}


class Stream:
    """Brings weights from the computer's memory to the device, the next one while the present one is at work.

    Which is next is what came next the last time after the same two layers: that tells forward passes from backward ones.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._after: dict[tuple[int, int], StoredWeight] = {}
        self._before = (0, 0)
        self._ahead: tuple[StoredWeight, Stored] | None = None

    def take(self, weight: StoredWeight) -> Stored:
        """The stored tensors on the device."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is weight:
            tensors = ahead[1]
            if self._side is not None:
                torch.cuda.current_stream(self._device).wait_stream(self._side)
                for tensor in tensors.values():
                    tensor.record_stream(torch.cuda.current_stream(self._device))
        else:
            tensors = self._copy(weight)
        self._after[self._before] = weight
        self._before = (self._before[1], id(weight))
        following = self._after.get(self._before)
        if following is not None:
            with torch.cuda.stream(self._side):
                self._ahead = (following, self._copy(following))
        return tensors

    def _copy(self, weight: StoredWeight) -> Stored:
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in weight.tensors.items()}


class StoredWeight:
    """One layer's weight as it is kept."""

    def __init__(self, weight: Tensor, storage: Storage, device: torch.device, stream: Stream | None):
        self.shape, self.dtype, self.storage, self.stream = weight.shape, weight.dtype, storage, stream
        packed = storage.pack(weight)
        if stream is None:
            self.tensors = {name: tensor.to(device) for name, tensor in packed.items()}
        else:
            self.tensors = {name: tensor.pin_memory() if device.type == "cuda" else tensor for name, tensor in packed.items()}

    def get(self) -> Tensor:
        """The weight on the device."""
        tensors = self.tensors if self.stream is None else self.stream.take(self)
        return self.storage.unpack(tensors, self.shape, self.dtype)

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


class _Frozen(torch.autograd.Function):
    """A layer's operation, whose backward pass makes the weight again; the weight itself gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: StoredLayer) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        return layer.operate(x, layer.weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.gradient(ctx.shape, ctx.layer.weight, gradients[0]), None


class StoredLayer(nn.Module):
    """A layer whose weight is a `StoredWeight`."""

    stored: StoredWeight

    @property
    def weight(self) -> Tensor:
        return self.stored.get()

    def forward(self, x: Tensor) -> Tensor:
        return _Frozen.apply(x, self)  # type: ignore[return-value]

    def operate(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def gradient(self, shape: torch.Size, weight: Tensor, gradient: Tensor) -> Tensor:
        """Of the loss by the input (of that shape), from that by the output."""
        raise NotImplementedError


class StoredLinear(StoredLayer, nn.Linear):  # type: ignore[misc]
    def operate(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, self.bias)

    def gradient(self, shape: torch.Size, weight: Tensor, gradient: Tensor) -> Tensor:
        return (gradient @ weight).view(shape)


class StoredConv2d(StoredLayer, nn.Conv2d):  # type: ignore[misc]
    def operate(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def gradient(self, shape: torch.Size, weight: Tensor, gradient: Tensor) -> Tensor:
        return torch.nn.grad.conv2d_input(shape, weight, gradient, self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]


_CLASSES: dict[type[nn.Module], type[StoredLayer]] = {nn.Linear: StoredLinear, nn.Conv2d: StoredConv2d}


def store_weights(network: nn.Module, kind: str, offload: float, device: torch.device) -> None:
    """Change the network's large layers to stored ones, for computing on `device`. The rest of it stays where it is.

    `kind` is one of `STORAGES`. The share `offload` of the weights, that of the last layers, stays in the computer's memory.
    """
    chosen = list(_large_layers(network))
    total = sum(layer.get_parameter("weight").numel() for layer in chosen)
    resident = total * (1 - offload)
    stream, storage = Stream(device), STORAGES[kind]
    for layer in chosen:
        weight = layer.get_parameter("weight")
        resident -= weight.numel()
        streamed = resident < -total * 1e-9
        if kind == "full" and not streamed:
            continue
        del layer._parameters["weight"]
        layer.__class__ = _CLASSES[type(layer)]
        layer.stored = StoredWeight(weight, storage, device, stream if streamed else None)  # type: ignore[assignment]


def _large_layers(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if type(module) in _CLASSES:
            weight = module.get_parameter("weight")
            if min(weight.shape[0], weight[0].numel()) >= SMALLEST_SIDE:
                yield module


def whole_bytes(network: nn.Module) -> int:
    """What a network's weights take before they are stored otherwise."""
    stored = [module.stored for module in network.modules() if isinstance(module, StoredLayer)]
    own = sum(tensor.numel() * tensor.element_size() for tensor in network.parameters())
    return own + sum(weight.shape.numel() * weight.dtype.itemsize for weight in stored)


def device_bytes(network: nn.Module) -> int:
    """What a network's weights take on the device."""
    stored = [module.stored for module in network.modules() if isinstance(module, StoredLayer)]
    own = sum(tensor.numel() * tensor.element_size() for tensor in network.parameters())
    return own + sum(weight.bytes for weight in stored if weight.stream is None)
