"""Reading weight files: names and shapes without the tensors first, then tensors one by one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Container, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ModelFileError, first_line
from .pickles import load_weights

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
_MAX_HEADER = 100_000_000  # the limit of the safetensors format
_DAMAGED = "model file {path} has a damaged safetensors header; download or copy it again"


class WeightFile(Protocol):
    """A weight file that was found whole."""

    path: Path

    @property
    def shapes(self) -> Shapes: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    def read(self, names: Container[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors, one at a time, so that no second copy of the file is held."""
        ...


def open_weights(path: Path) -> WeightFile:
    """A .safetensors or .ckpt/.pt/.pth/.bin file; ModelFileError says why it cannot be used."""
    if path.is_dir():
        raise ModelFileError(f"model file {path} is a folder; give a .safetensors or .ckpt file")
    if not path.is_file():
        raise ModelFileError(f"model file {path} does not exist; give a .safetensors or .ckpt file or a diffusers folder")
    if path.suffix.lower() in (".safetensors", ".sft"):
        return SafetensorsFile(path)
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        return TorchFile(path)
    raise ModelFileError(f"model file {path} has the ending {path.suffix!r}; expected .safetensors or .ckpt")


def read_json(path: Path) -> dict[str, Any]:
    """The settings in a file beside the weights; ModelFileError where it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} should hold named settings, found {type(value).__name__}")
    return value


class SafetensorsFile:
    """Read with plain file reads: a memory map would keep each page that was read in this process's resident memory."""

    def __init__(self, path: Path):
        self.path = path
        header, self.data_start = _read_header(path)
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._entries: dict[str, Any] = header
        try:
            self.shapes: Shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
            expected = self.data_start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (KeyError, TypeError, IndexError):
            raise ModelFileError(_DAMAGED.format(path=path)) from None
        actual = path.stat().st_size
        if actual < expected:
            raise ModelFileError(f"model file {path} is truncated: {actual:,} of {expected:,} bytes; download or copy it again")

    def read(self, names: Container[str]) -> Iterator[tuple[str, Tensor]]:
        import torch

        dtypes = _safetensors_dtypes()
        with self.path.open("rb") as file:
            for name, entry in sorted(self._entries.items(), key=lambda item: item[1]["data_offsets"]):
                if name not in names:
                    continue
                if entry["dtype"] not in dtypes:
                    raise ModelFileError(f"model file {self.path}: {name} has numbers of the kind {entry['dtype']}, which is not read here")
                start, end = entry["data_offsets"]
                raw = torch.empty(end - start, dtype=torch.uint8)
                file.seek(self.data_start + start)
                if end > start and file.readinto(raw.numpy().data) != end - start:
                    raise ModelFileError(f"model file {self.path} became shorter while it was read")
                yield name, raw.view(dtypes[entry["dtype"]]).reshape(entry["shape"])


def _safetensors_dtypes() -> dict[str, Any]:
    import torch

    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}
    names |= {"I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
    return {key: getattr(torch, name) for key, name in names.items()}


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header and the offset at which the tensors start."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little") if size >= 8 else 0
        if not 2 <= header_size <= min(size - 8, _MAX_HEADER):
            raise ModelFileError(f"model file {path} is not a whole safetensors file ({size:,} bytes); download or copy it again")
        try:
            header = json.loads(file.read(header_size))
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise ModelFileError(_DAMAGED.format(path=path))
    return header, 8 + header_size


class TorchFile:
    """A file of torch.save, opened only through weights-only loading, which runs no code from the file."""

    def __init__(self, path: Path):
        self.path = path
        self.metadata: dict[str, str] = {}

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        import torch

        try:
            value = load_weights(self.path)
        except pickle.UnpicklingError as error:
            raise ModelFileError(
                f"model file {self.path} holds more than weights, or is damaged; it was not opened any further. "
                f"Convert it to .safetensors. ({first_line(error)})"
            ) from None
        except (RuntimeError, EOFError, OSError, ValueError) as error:
            raise ModelFileError(f"model file {self.path} is damaged or truncated: {first_line(error)}") from None
        value = value.get("state_dict", value) if isinstance(value, dict) else {}
        tensors = {name: tensor for name, tensor in value.items() if isinstance(tensor, torch.Tensor)}
        if not tensors:
            raise ModelFileError(f"model file {self.path} holds no named tensors")
        return tensors

    @property
    def shapes(self) -> Shapes:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, names: Container[str]) -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor) for name, tensor in self._tensors.items() if name in names)
