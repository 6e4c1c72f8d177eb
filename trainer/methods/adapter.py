"""Training an adapter (LoRA …) beside the frozen model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..adapters import ADAPTERS
from ..adapters.inject import AdapterSet, fresh_layers
from ..config import AdapterSection, OptimizerSection
from ..families import Family, Model
from .base import ParameterGroup


class AdapterMethod:
    """One adapter set over the UNet, the text encoder, or both."""

    artefact_kind = "lora"

    def __init__(self, section: AdapterSection, optimizer: OptimizerSection):
        self.section, self.optimizer = section, optimizer
        self.trains_text = section.train_text_encoder
        self._sets: dict[str, AdapterSet] = {}
        self._dtype = torch.float32
        self._seed = 0

    @staticmethod
    def check(section: AdapterSection) -> list[str]:
        """What is wrong with the settings, one sentence each."""
        problems = []
        if section.adapter not in ADAPTERS:
            problems.append(f"method.adapter: {section.adapter!r} is unknown; known: {', '.join(ADAPTERS)}")
        if not (section.train_unet or section.train_text_encoder):
            problems.append("method: train_unet and train_text_encoder are both off, so nothing would be trained; switch one on")
        return problems

    def attach(self, family: Family, model: Model, seed: int) -> None:
        self._dtype, self._seed = model.dtype, seed
        targets = family.adapter_targets(model)
        for part, wanted in (("text_encoder", self.section.train_text_encoder), ("unet", self.section.train_unet)):
            if wanted:
                chosen = [(target.key, target.module) for target in targets if target.part == part]
                layers = fresh_layers(ADAPTERS[self.section.adapter], chosen, self.section.rank, self.section.alpha, seed)
                self._sets[part] = AdapterSet(layers)
                self._sets[part].attach()

    def detach(self) -> None:
        for adapters in self._sets.values():
            adapters.detach()

    def groups(self) -> list[ParameterGroup]:
        rates = {"text_encoder": self.optimizer.text_encoder_lr, "unet": self.optimizer.unet_lr}
        return [
            ParameterGroup(part, list(adapters.parameters()), self.optimizer.lr if (rate := rates[part]) is None else rate)
            for part, adapters in self._sets.items()
        ]

    def before_forward(self, step: int | None = None) -> None:
        for adapters in self._sets.values():
            adapters.cast(self._dtype)

    @contextmanager
    def without(self) -> Iterator[None]:
        for adapters in self._sets.values():
            adapters.release()
        yield
        self.before_forward()

    def state(self) -> dict[str, Tensor]:
        return {name: tensor for adapters in self._sets.values() for name, tensor in adapters.state().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        for adapters in self._sets.values():
            names = adapters.state()
            adapters.restore({name: tensor for name, tensor in tensors.items() if name in names})

    def artefact(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {name: tensor for adapters in self._sets.values() for name, tensor in adapters.saved(dtype).items()}

    def metadata(self) -> dict[str, Any]:
        return {"network_module": "networks.lora", "network_dim": self.section.rank, "network_alpha": self.section.alpha}

    def silent(self) -> list[str]:
        return [key for adapters in self._sets.values() for key in adapters.silent()]
