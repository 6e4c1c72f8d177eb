"""Training an adapter (LoRA …) beside the frozen model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..adapters.inject import AdapterSet, fresh_layers
from ..config import AdapterSection, OptimizerSection
from ..errors import ConfigError
from ..families import Family, FamilySpec, Model
from ..seeds import derive
from .base import ParameterGroup
from .block_plan import BlockReport, Place, plan_blocks
from .kinds import algorithm, check_options
from .network import network_facts
from .targets import choose_targets


class AdapterMethod:
    """One adapter set over the UNet, the text encoders, or both."""

    artefact_kind = "lora"

    def __init__(self, section: AdapterSection, optimizer: OptimizerSection):
        self.section, self.optimizer = section, optimizer
        self.trains_text = section.train_text_encoder
        self._sets: dict[str, AdapterSet] = {}
        self._places: dict[str, Place] = {}  # by saved name
        self._unused: set[str] = set()  # saved names of layers that can learn nothing
        self._dtype = torch.float32
        self._seed = 0

    @staticmethod
    def check(section: AdapterSection) -> tuple[list[str], list[str]]:
        """Problems and warnings, one sentence each."""
        problems, warnings = check_options(section)
        if not (section.train_unet or section.train_text_encoder):
            problems.append("method: train_unet and train_text_encoder are both off, so nothing would be trained; switch one on")
        return problems, warnings

    @staticmethod
    def check_family(section: AdapterSection, spec: FamilySpec) -> list[str]:
        try:
            plan_blocks(section, spec)
        except ConfigError as error:
            return error.problems
        return []

    def report(self, family: Family, model: Model) -> BlockReport | None:
        plan = plan_blocks(self.section, family.spec)
        targets = choose_targets(self.section, family.adapter_targets(model))
        return plan.report(targets, self._rates()) if plan.table else None

    def attach(self, family: Family, model: Model, seed: int) -> None:
        self._dtype, self._seed = model.dtype, seed
        plan, adapter = plan_blocks(self.section, family.spec), algorithm(self.section)
        for target in choose_targets(self.section, family.adapter_targets(model)):
            if place := plan.place(target):
                layers = fresh_layers(adapter, [(target.key, target.module)], place.rank, place.alpha, seed, self.section.dora)
                self._sets.setdefault(target.part, AdapterSet([])).layers += layers
                self._places[target.key] = place
                if not target.used:
                    self._unused.add(target.key)
        for adapters in self._sets.values():
            adapters.attach()

    def _rates(self) -> dict[str, float]:
        """The learning rate of each part; the second text encoder has that of the first, and all have `lr`, unless set."""
        common, text = self.optimizer.lr, self.optimizer.text_encoder_lr
        given = {
            "unet": [self.optimizer.unet_lr],
            "text_encoder": [text],
            "text_encoder_2": [self.optimizer.text_encoder_2_lr, text],
        }
        return {part: next((rate for rate in rates if rate is not None), common) for part, rates in given.items()}

    def detach(self) -> None:
        for adapters in self._sets.values():
            adapters.detach()

    def groups(self) -> list[ParameterGroup]:
        groups: dict[str, ParameterGroup] = {}
        for part, adapters in self._sets.items():
            for layer in adapters.layers:
                place = self._places[layer.key]
                group = groups.setdefault(place.group, ParameterGroup(place.group, [], self._rates()[part] * place.multiplier))
                group.parameters.extend(layer.tensors.values())
        return list(groups.values())

    def before_forward(self, step: int | None = None) -> None:
        draw = None if step is None else (derive(self._seed, "ranks", step) >> 10) / 2**53
        for adapters in self._sets.values():
            adapters.cast(self._dtype, draw)

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
        return network_facts(self.section) | {"network_dim": self.section.rank, "network_alpha": self.section.alpha}

    def silent(self) -> list[str]:
        return [key for adapters in self._sets.values() for key in adapters.silent() if key not in self._unused]
