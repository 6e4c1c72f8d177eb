"""Reading adapter files, to draw with them at any strength."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelFileError
from . import ADAPTERS
from .base import Adapter, LayerShape, Tensors
from .dora import MAGNITUDE, shapes_of
from .inject import AdapterLayer, AdapterSet
from .lora import DOWN, UP

# PEFT's names for LoRA's two matrices, in both of their forms.
_KOHYA_NAMES = {"lora_A.weight": DOWN, "lora_B.weight": UP, "lora_A.default.weight": DOWN, "lora_B.default.weight": UP}


def load_adapters(path: Path, targets: Iterable[tuple[str, nn.Module]]) -> tuple[AdapterSet, list[str]]:
    """The adapters of a file for the layers (key, module) that it names, and the tensor names that no layer took.

    ModelFileError where the file cannot be read or fits none of the layers.
    """
    return fit_adapters(path, read_tensors(path), targets)


def read_tensors(path: Path) -> Tensors:
    """All tensors of a file; ModelFileError where it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"LoRA {path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        raise ModelFileError(f"LoRA {path} is not a whole safetensors file: {error}") from None


def fit_adapters(path: Path, tensors: Mapping[str, Tensor], targets: Iterable[tuple[str, nn.Module]]) -> tuple[AdapterSet, list[str]]:
    """The same for tensors that are read already; messages call their file `path`."""
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
    own = {_KOHYA_NAMES.get(name, name): tensor for name, tensor in tensors.items() if name != "alpha"}
    magnitude = {MAGNITUDE: own.pop(MAGNITUDE)} if MAGNITUDE in own else {}
    adapter = _algorithm(path, key, own)
    shape = LayerShape.of(module)
    fitting = adapter.shapes(shape, own)
    if magnitude:
        per_input, per_output = shapes_of(shape.weight)
        fitting[MAGNITUDE] = per_output if len(magnitude[MAGNITUDE]) == shape.outputs else per_input
    weights = {name: _fitted(path, f"{key}.{name}", tensor, fitting[name]) for name, tensor in sorted((own | magnitude).items())}
    alpha = float(tensors["alpha"]) if "alpha" in tensors else 0.0
    return AdapterLayer(adapter, key, module, weights, alpha or adapter.rank_of(weights) or 1.0)


def _fitted(path: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor in the layer's own shape: some programs write a 1x1 convolution as a matrix, or a kernel flattened."""
    if tensor.numel() != torch.Size(shape).numel() or tensor.shape[:1] != shape[:1]:
        found = tuple(tensor.shape)
        raise ModelFileError(f"LoRA {path} is for another model: {name} has shape {found}, but this layer needs {shape}")
    return tensor.reshape(shape)


def _algorithm(path: Path, key: str, weights: Tensors) -> Adapter:
    """The algorithm whose tensor names the file uses."""
    for adapter in ADAPTERS.values():
        if set(weights) in adapter.layouts:
            return adapter
    raise ModelFileError(f"LoRA {path}: {key} has the tensors {', '.join(sorted(weights))}, which are of no known adapter")


def set_strength(adapters: AdapterSet, strength: float | Mapping[str, float], dtype: torch.dtype) -> None:
    """Let the model run with these adapters at a strength, or at one for each layer's key; 0 is the plain model."""
    adapters.release()
    strengths = {layer.key: strength if isinstance(strength, (int, float)) else strength[layer.key] for layer in adapters.layers}
    if not any(strengths.values()):
        return
    for layer in adapters.layers:
        layer.strength = strengths[layer.key]
    with torch.no_grad():
        adapters.cast(dtype)
