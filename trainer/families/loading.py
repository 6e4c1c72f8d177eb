"""Loading a base model together with the LoRA files that are merged into it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.files import load_adapters
from ..config import BaseSection, MemorySection
from ..data.cache import file_digest
from ..events import Warned
from .base import Family, Model
from .storage import store_weights

if TYPE_CHECKING:
    import torch


def check_loras(base: BaseSection) -> list[str]:
    """LoRA files that are not there, one sentence each."""
    missing = [(number, lora.file) for number, lora in enumerate(base.loras) if not Path(lora.file).expanduser().is_file()]
    return [f"base.loras.{number}.file: {file} is not a file" for number, file in missing]


def load_base(family: Family, base: BaseSection, device: torch.device, dtype: torch.dtype, memory: MemorySection | None = None) -> Model:
    """The model of a configuration with its LoRAs merged: W + strength · ΔW, added in float32 and rounded once.

    Tensors that no layer took are noted on it. ModelFileError where a file is for another model. Networks on the meta device
    stay as they are. Where `memory` has weights stored otherwise than whole, they are merged first, and never whole on the device.
    """
    import torch

    stored = memory is not None and (memory.weights != "full" or memory.offload > 0)
    model = family.load(base, torch.device("cpu") if stored and device.type != "meta" else device, dtype)
    if device.type != "meta":
        for lora in base.loras:
            _merge(family, model, Path(lora.file).expanduser(), lora.strength)
    if memory is not None and stored:
        _store(model, memory, device)
    return model


def _store(model: Model, memory: MemorySection, device: torch.device) -> None:
    """Store the frozen networks' weights, and take the rest to the device. The VAE stays whole: it is small, and pictures show it."""
    for part, network in {"unet": model.unet, **model.text_encoders}.items():
        store_weights(network, memory.weights, memory.offload if part == "unet" else 0.0, device)
        network.to(device)
        if memory.weights != "full":
            model.identity[part] += f" {memory.weights}"
    if model.vae is not None:
        model.vae.to(device)
    model.device = device


def _merge(family: Family, model: Model, file: Path, strength: float) -> None:
    """Merge one file; the parts that it changes get another identity, so that nothing cached for the plain model is used."""
    import torch

    targets = {target.key: target for target in family.adapter_targets(model)}
    adapters, unused = load_adapters(file, [(target.key, target.module) for target in targets.values()])
    with torch.no_grad():
        for layer in adapters.layers:
            layer.strength = strength
            weight = layer.module.get_parameter("weight")
            weight.copy_(weight.float() + layer.change())
    for part in {targets[layer.key].part for layer in adapters.layers}:
        model.identity[part] = hashlib.sha256(f"{model.identity[part]} {file_digest(file)} {strength}".encode()).hexdigest()
    if unused:
        text = f"base.loras: {len(unused)} tensors of {file} fit no layer of this model, for example {unused[0]}"
        model.notes = (*model.notes, Warned(text))
