"""Building a network from its configuration and filling it with a file's tensors, without a second copy in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ModelFileError
from .weights import WeightFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def build(
    make: Callable[[], nn.Module],
    what: str,
    file: WeightFile,
    names: Mapping[str, str],
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """The network that `make` constructs, with the file's tensors in `dtype`, frozen and in evaluation mode.

    `names` maps the file's tensor names to the network's. On the meta device no weight is read. ModelFileError names
    tensors that are missing or of another shape.
    """
    import torch
    from torch import nn

    with torch.device("meta"):
        network = make()
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = sorted(set(expected) - set(names.values()))
    if missing:
        raise ModelFileError(f"{file.path}: {len(missing)} tensors of the {what} are missing, for example {missing[0]}")
    if device.type == "meta":
        return nn.Module.to(network, dtype).requires_grad_(False).eval()  # diffusers' own `to` warns about dtypes
    state = {}
    for name, tensor in file.read({name for name, own in names.items() if own in expected}):
        own = names[name]
        tensor = _point_wise(tensor, expected[own])
        if tuple(tensor.shape) != expected[own]:
            raise ModelFileError(f"{file.path}: {name} has shape {tuple(tensor.shape)}, but the {what} needs {expected[own]}")
        state[own] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    network.load_state_dict(state, assign=True)
    _fill_buffers(network)
    return network.requires_grad_(False).eval()


def _point_wise(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A linear layer and a 1x1 convolution are the same; which of the two stands for a layer differs between files and libraries."""
    matrix, kernel = sorted((tuple(tensor.shape), shape), key=len)
    return tensor.reshape(shape) if len(matrix) == 2 and kernel == (*matrix, 1, 1) else tensor


def _fill_buffers(network: nn.Module) -> None:
    """Buffers that are never saved were created without memory; the only ones in use are position numbers."""
    import torch

    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                assert name == "position_ids", f"unknown unsaved buffer {name}"
                setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape).clone())


def config_of(library_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a diffusers class knows; folders carry private ones, and ones of other library versions."""
    import inspect

    known = inspect.signature(library_class.__init__).parameters
    return {name: value for name, value in values.items() if name in known}


def digest(network: nn.Module, sample: int | None = None) -> str:
    """A digest of all tensors of a network on the CPU, or of the first `sample` numbers of each: its identity."""
    import torch

    if next(network.parameters()).is_meta:
        return ""
    result = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        result.update(tensor.detach().contiguous().view(-1)[:sample].view(torch.uint8).numpy())
    return result.hexdigest()
