"""Reading adapter files, to draw with them at any strength."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelFileError
from . import ADAPTERS
from .base import Adapter, LayerShape, Tensors
from .inject import AdapterLayer, AdapterSet


def load_adapters(path: Path, targets: Iterable[tuple[str, nn.Module]]) -> tuple[AdapterSet, list[str]]:
    """The adapters of a file for the layers (key, module) that it names, and the tensor names that no layer took.

    ModelFileError where the file cannot be read or fits none of the layers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"LoRA {path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        raise ModelFileError(f"LoRA {path} is not a whole safetensors file: {error}") from None
    layers, used = [], set()
    for key, module in targets:
        mine = {name.removeprefix(key + "."): tensor for name, tensor in tensors.items() if name.startswith(key + ".")}
        if mine:
            layers.append(_layer(path, key, module, mine))
            used |= {f"{key}.{name}" for name in mine}
    if not layers:
        raise ModelFileError(f"LoRA {path} fits no layer of this model; its tensors start with {next(iter(tensors), 'nothing')!r}")
    return AdapterSet(layers), sorted(set(tensors) - used)


def _layer(path: Path, key: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> AdapterLayer:
    weights: Tensors = {name: tensor for name, tensor in tensors.items() if name != "alpha"}
    adapter = _algorithm(path, key, weights)
    alpha = float(tensors["alpha"]) if "alpha" in tensors else 0.0
    fitting = adapter.init(LayerShape.of(module), adapter.rank_of(weights), torch.Generator())
    for name, tensor in weights.items():
        if tensor.shape != fitting[name].shape:
            found, expected = tuple(tensor.shape), tuple(fitting[name].shape)
            raise ModelFileError(f"LoRA {path} is for another model: {key}.{name} has shape {found}, but this layer needs {expected}")
    return AdapterLayer(adapter, key, module, weights, alpha or adapter.rank_of(weights))


def _algorithm(path: Path, key: str, weights: Tensors) -> Adapter:
    """The algorithm whose tensor names the file uses."""
    for adapter in ADAPTERS.values():
        if set(weights) == set(adapter.tensor_names):
            return adapter
    raise ModelFileError(f"LoRA {path}: {key} has the tensors {', '.join(sorted(weights))}, which are of no known adapter")


def set_strength(adapters: AdapterSet, strength: float, dtype: torch.dtype) -> None:
    """Let the model run with these adapters at a strength; 0 is the plain model."""
    adapters.release()
    if strength == 0:
        return
    with torch.no_grad():
        adapters.cast(dtype)
    for layer in adapters.layers:
        layer.scale = strength * layer.alpha / layer.adapter.rank_of(layer.tensors)
