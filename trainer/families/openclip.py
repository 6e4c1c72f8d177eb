"""OpenCLIP's text encoders, which single files hold under OpenCLIP's own names, seen under those of transformers."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING

from .weights import Shapes, WeightFile

if TYPE_CHECKING:
    from torch import Tensor

_WHOLE = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_BLOCKS = "transformer.resblocks."
_FUSED = ("q", "k", "v")  # the order of the three projections in attn.in_proj
_PROJECTION = "text_projection"  # stored (inputs, outputs); a linear layer's weight is the transpose


def names_of(name: str) -> tuple[str, ...]:
    """The names in transformers that one OpenCLIP tensor turns into: three for a fused projection, none for a stranger."""
    if name in _WHOLE:
        return ("text_model." + _WHOLE[name],)
    if name == _PROJECTION:
        return (f"{_PROJECTION}.weight",)
    if not name.startswith(_BLOCKS):
        return ()
    layer, _, rest = name.removeprefix(_BLOCKS).partition(".")
    head = f"text_model.encoder.layers.{layer}."
    if rest.startswith("attn.in_proj_"):
        return tuple(f"{head}self_attn.{part}_proj.{rest.removeprefix('attn.in_proj_')}" for part in _FUSED)
    module, _, kind = rest.rpartition(".")
    return (f"{head}{_LAYER[module]}.{kind}",) if module in _LAYER else ()


def to_openclip(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a transformers text encoder (without `text_model.`) as OpenCLIP stores them."""
    names = {new: old for old, new in _WHOLE.items()}
    layers = {new: old for old, new in _LAYER.items()}
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if name in names:
            result[names[name]] = shape
        elif name == f"{_PROJECTION}.weight":
            result[_PROJECTION] = shape[::-1]
        elif name.startswith("encoder.layers."):
            layer, _, rest = name.removeprefix("encoder.layers.").partition(".")
            module, _, kind = rest.rpartition(".")
            if module == "self_attn.q_proj":
                result[f"{_BLOCKS}{layer}.attn.in_proj_{kind}"] = (3 * shape[0], *shape[1:])
            elif module in layers:
                result[f"{_BLOCKS}{layer}.{layers[module]}.{kind}"] = shape
    return result


class OpenClipFile:
    """The tensors below `prefix` in a weight file, renamed and split as transformers has them."""

    def __init__(self, file: WeightFile, prefix: str):
        self.path, self._file = file.path, file
        self.metadata: Mapping[str, str] = file.metadata
        stored = {name: names_of(name.removeprefix(prefix)) for name in file.shapes if name.startswith(prefix)}
        self._names = {name: parts for name, parts in stored.items() if parts}
        self.shapes: Shapes = {}
        for name, parts in self._names.items():
            shape = file.shapes[name]
            shape = shape[::-1] if parts[0].startswith(_PROJECTION) else (shape[0] // len(parts), *shape[1:])
            self.shapes |= dict.fromkeys(parts, shape)

    def read(self, names: Container[str]) -> Iterator[tuple[str, Tensor]]:
        wanted = {name for name, parts in self._names.items() if any(part in names for part in parts)}
        for name, tensor in self._file.read(wanted):
            parts = self._names[name]
            whole = tensor.t().contiguous() if parts[0].startswith(_PROJECTION) else tensor
            for part, piece in zip(parts, whole.chunk(len(parts)), strict=True):
                if part in names:
                    yield part, piece.clone() if len(parts) > 1 else piece
