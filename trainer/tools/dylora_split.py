"""Cutting the smaller LoRAs out of a DyLoRA file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, ModelFileError

if TYPE_CHECKING:
    from torch import Tensor


def dylora_split(path: Path, folder: Path, ranks: Sequence[int] = ()) -> list[Path]:
    """Write `<name>-<rank>.safetensors` for each rank into a folder; without ranks, for every multiple of the file's own unit.

    A layer of a smaller rank is kept whole. alpha/rank stays what it was, so each file does what those ranks did in training.
    ConfigError for ranks that the file does not have and for files that exist already; ModelFileError for no LoRA.
    """
    from ..block_weights import read_lora
    from ..checkpoint import save_artefact

    tensors, metadata = read_lora(path)
    layers = _layers(path, tensors)
    full = max(down.shape[0] for down in layers.values())
    wanted = list(ranks) or _multiples(path, metadata, full)
    if wrong := [rank for rank in wanted if not 0 < rank <= full]:
        raise ConfigError(f"ranks: {path.name} has {full} ranks, so {wrong[0]} cannot be cut out of it; give numbers from 1 to {full}")
    files = {rank: folder / f"{path.stem}-{rank:04d}.safetensors" for rank in wanted}
    if taken := [file for file in files.values() if file.exists()]:
        raise ConfigError(f"out: {taken[0]} exists already; choose another folder. Nothing was changed")
    for rank, target in files.items():
        save_artefact(target, _cut(tensors, layers, rank), metadata | _facts(metadata, rank, full))
    return list(files.values())


def _layers(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Key -> its lora_down."""
    from ..adapters.lora import DOWN

    layers = {name.removesuffix(f".{DOWN}"): tensor for name, tensor in tensors.items() if name.endswith(f".{DOWN}")}
    if not layers:
        raise ModelFileError(f"{path} is no DyLoRA: it has no tensor named …{DOWN}")
    return layers


def _multiples(path: Path, metadata: Mapping[str, str], full: int) -> list[int]:
    arguments = json.loads(metadata.get("ss_network_args") or "{}")
    unit = int(arguments.get("block_size") or arguments.get("unit") or 0)
    if not unit:
        raise ConfigError(f"ranks: {path.name} does not say what its unit is; say which ranks to cut out, such as --ranks 4 8")
    return list(range(unit, full, unit)) or [full]


def _cut(tensors: Mapping[str, Tensor], layers: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    import torch

    from ..adapters.dylora import first_ranks
    from ..adapters.lora import DOWN, MID, UP

    result = dict(tensors)
    for key, down in layers.items():
        own = {name: tensors[f"{key}.{name}"] for name in (DOWN, MID, UP) if f"{key}.{name}" in tensors}
        result |= {f"{key}.{name}": tensor.contiguous() for name, tensor in first_ranks(own, rank).items()}
        whole, kept = down.shape[0], min(rank, down.shape[0])
        alpha = tensors.get(f"{key}.alpha")
        result[f"{key}.alpha"] = torch.tensor(float(kept)) if alpha is None else (alpha.float() * kept / whole).to(alpha.dtype)
    return result


def _facts(metadata: Mapping[str, str], rank: int, full: int) -> dict[str, str]:
    """The entries that are no longer true of a file of this rank."""
    alpha = metadata.get("ss_network_alpha")
    facts = {"ss_network_dim": str(rank)}
    try:
        return facts | ({"ss_network_alpha": str(float(alpha) * rank / full)} if alpha else {})
    except ValueError:  # "Dynamic": it differs from layer to layer
        return facts
