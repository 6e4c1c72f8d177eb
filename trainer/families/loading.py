"""Loading a base model together with the LoRA files that are merged into it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.files import load_adapters
from ..config import BaseSection, MemorySection
from ..data.cache import file_digest
from ..events import Warned
from ..files import from_home
from .base import Family, Model
from .storage import store_weights

if TYPE_CHECKING:
    import torch
    from torch import nn


def check_loras(base: BaseSection) -> list[str]:
    """LoRA files that are not there, one sentence each."""
    missing = [(number, lora.file) for number, lora in enumerate(base.loras) if not from_home(lora.file).is_file()]
    return [f"base.loras.{number}.file: {file} is not a file" for number, file in missing]


def load_base(
    family: Family,
    base: BaseSection,
    device: torch.device,
    dtype: torch.dtype,
    memory: MemorySection | None = None,
    *,
    unet_waits: bool = False,
) -> Model:
    """The model of a configuration with its LoRAs merged: W + strength · ΔW, added in float32 and rounded once.

    Tensors that no layer took are noted on it. ModelFileError where a file is for another model. Networks on the meta device
    stay as they are. Where `memory` has weights stored otherwise than whole, they are merged first, and never whole on the device.
    Where the UNet waits, the largest network is not on the device while pictures and captions are encoded, until `bring_unet`.
    """
    import torch

    model = family.load(base, device if device.type == "meta" else torch.device("cpu"), dtype)
    if device.type != "meta":
        for lora in base.loras:
            _merge(family, model, from_home(lora.file), lora.strength)
    memory = memory or MemorySection()
    model.device = device
    for name, encoder in model.text_encoders.items():
        _place(encoder, memory.weights, 0.0, device)
        model.identity[name] += _stored_as(memory)
    model.identity["unet"] += _stored_as(memory)
    if model.vae is not None:  # it stays whole: it is small, and pictures show it
        model.vae.to(device)
    if not unet_waits:
        bring_unet(model, memory)
    return model


def bring_unet(model: Model, memory: MemorySection) -> None:
    """Take the UNet of a model that was loaded without it to the model's device, stored as `memory` says."""
    _place(model.unet, memory.weights, memory.offload, model.device)


def _place(network: nn.Module, weights: str, offload: float, device: torch.device) -> None:
    if weights != "full" or offload > 0:
        store_weights(network, weights, offload, device)
    network.to(device)


def _stored_as(memory: MemorySection) -> str:
    """What tells a network with stored weights from a whole one."""
    return "" if memory.weights == "full" else f" {memory.weights}"


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
