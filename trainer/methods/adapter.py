"""Training an adapter (LoRA …) beside the frozen model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..adapters import Adapter, LayerShape
from ..adapters.dropout import DropoutRates
from ..adapters.inject import AdapterSet, fresh_layers
from ..config import AdapterSection, OptimizerSection
from ..data.cache import file_digest
from ..errors import ConfigError
from ..families import AdapterTarget, Family, FamilySpec, Model
from ..files import from_home
from ..optim.optimizers import OPTIMIZERS
from ..seeds import derive
from .base import ParameterGroup
from .block_plan import BlockPlan, BlockReport, Place, plan_blocks
from .kinds import algorithm, check_options
from .network import network_facts
from .regularisation import check_algorithm, check_text_stop, check_training, text_stop
from .start import as_found, common_size, read_start
from .targets import choose_targets


class AdapterMethod:
    """One adapter set over the UNet, the text encoders, or both."""

    artefact_kind = "lora"

    def __init__(self, section: AdapterSection, optimizer: OptimizerSection):
        self.section, self.optimizer = section, optimizer
        self.trains_text = section.train_text_encoder
        self._sets: dict[str, AdapterSet] = {}
        self._plan: BlockPlan | None = None
        self._places: dict[str, Place] = {}  # by saved name
        self._unused: set[str] = set()  # saved names of layers that can learn nothing
        self._dtype = torch.float32
        self._seed = 0
        self._draw = 0.0  # the random number of the current step

    @staticmethod
    def check(section: AdapterSection, optimizer: OptimizerSection, total: int | None = None) -> tuple[list[str], list[str]]:
        problems, warnings = check_options(section)
        for more_problems, more_warnings in (check_training(section, optimizer), check_text_stop(section, total)):
            problems += more_problems
            warnings += more_warnings
        return problems, warnings

    @staticmethod
    def mark(section: AdapterSection, total: int) -> dict[str, Any]:
        """The file to continue from by its content, the end of the text encoder's training as a step."""
        file = section.continue_from
        return {
            "continue_from": file_digest(from_home(file)) if file else None,
            "stop_text_encoder": text_stop(section, total),
        }

    @staticmethod
    def check_family(section: AdapterSection, optimizer: OptimizerSection, spec: FamilySpec) -> list[str]:
        try:
            multipliers = plan_blocks(section, spec).multipliers()
        except ConfigError as error:
            return error.problems
        kind = OPTIMIZERS.get(optimizer.kind)
        if kind is None or not kind.finds_rate or len(multipliers) < 2:
            return []
        listed = ", ".join(f"{multiplier:g}" for multiplier in sorted(multipliers))
        return [
            f"method.blocks: {optimizer.kind} finds one rate for all blocks, but their weights are {listed}; "
            "give all that are trained the same weight, or choose another optimizer.kind"
        ]

    def report(self, family: Family, model: Model) -> BlockReport | None:
        plan = plan_blocks(self.section, family.spec)
        targets = choose_targets(self.section, family.adapter_targets(model))
        return plan.report(targets, self._rates()) if plan.table else None

    def attach(self, family: Family, model: Model, seed: int) -> list[str]:
        self._dtype, self._seed = model.dtype, seed
        plan, adapter = plan_blocks(self.section, family.spec), algorithm(self.section)
        self._plan = plan
        placed = [
            (target, place) for target in choose_targets(self.section, family.adapter_targets(model)) if (place := plan.place(target))
        ]
        start = read_start(self.section, adapter, placed)
        if problems := [text for other in start.algorithms() for text in check_algorithm(other, self.section, self.optimizer)]:
            raise ConfigError(problems)
        for target, place in placed:
            found = start.layers.get(target.key)
            layers = (
                [found] if found else fresh_layers(adapter, [(target.key, target.module)], place.rank, place.alpha, seed, self.section.dora)
            )
            self._sets.setdefault(target.part, AdapterSet([])).layers += layers
            self._places[target.key] = place
            if not target.used:
                self._unused.add(target.key)
        for adapters in self._sets.values():
            adapters.attach()
        fresh = [(target, place) for target, place in placed if target.key not in start.layers]
        return start.warnings + self._alpha_without_effect(adapter, fresh)

    def _alpha_without_effect(self, adapter: Adapter, fresh: Sequence[tuple[AdapterTarget, Place]]) -> list[str]:
        """A warning about new layers whose tensors have no rank to divide alpha by, where alpha was set."""
        alpha = self.section.alpha
        whole = [target.key for target, place in fresh if not adapter.uses_alpha(LayerShape.of(target.module), place.rank)]
        if not whole or alpha == AdapterSection.model_fields["alpha"].default:
            return []
        return [
            f"method.alpha: {alpha:g} has no effect on {len(whole)} layers, for at their rank {adapter.name} keeps whole tensors "
            f"of strength 1; the first is {whole[0]}"
        ]

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
        """One for each place; with LoRA+ (Hayou et al. 2024, arXiv 2402.12354) a second one for its up matrices."""
        groups: dict[str, ParameterGroup] = {}
        ratio = self.optimizer.lora_plus
        for part, adapters in self._sets.items():
            for layer in adapters.layers:
                place = self._places[layer.key]
                rate = self._rates()[part] * place.multiplier
                for name, tensor in layer.tensors.items():
                    raised = ratio is not None and name in layer.adapter.up_names
                    own = f"{place.group}_up" if raised else place.group
                    group = groups.setdefault(own, ParameterGroup(own, [], rate * ratio if raised and ratio else rate))
                    group.parameters.append(tensor)
        return list(groups.values())

    def before_step(self, step: int, total: int) -> None:
        self._draw = (derive(self._seed, "ranks", step) >> 10) / 2**53
        stop = text_stop(self.section, total)
        if stop is not None:
            for part, adapters in self._sets.items():
                adapters.train(part == "unet" or step < stop)

    def before_forward(self, seeds: Sequence[int] | None = None) -> None:
        rates = DropoutRates(self.section.dropout, self.section.rank_dropout, self.section.module_dropout)
        for adapters in self._sets.values():
            adapters.drop(rates, seeds)
            adapters.cast(self._dtype, None if seeds is None else self._draw)

    def after_step(self) -> Tensor | None:
        if self.section.max_norm is None:
            return None
        trained = [adapters for adapters in self._sets.values() if next(adapters.parameters()).requires_grad]
        return torch.stack([adapters.limit(self.section.max_norm) for adapters in trained]).sum()

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
        if not self.section.continue_from:
            return network_facts(self.section, self._plan) | {"network_dim": self.section.rank, "network_alpha": self.section.alpha}
        layers = [layer for adapters in self._sets.values() for layer in adapters.layers]
        return network_facts(as_found(self.section, layers), self._plan) | common_size(layers)

    def silent(self) -> list[str]:
        return [key for adapters in self._sets.values() for key in adapters.silent() if key not in self._unused]
