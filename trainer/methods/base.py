"""What a training method supplies to the loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..config import OptimizerSection
from ..families import Family, FamilySpec, Model
from .block_plan import BlockReport


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    name: str
    parameters: list[nn.Parameter]
    lr: float


class Method(Protocol):
    """One way of training a base model."""

    trains_text: bool
    artefact_kind: str  # "lora", the `kind` of its `Saved` events

    @staticmethod
    def check(section: Any, optimizer: OptimizerSection, total: int | None = None) -> tuple[list[str], list[str]]:
        """Problems and warnings, one sentence each; the number of steps, `total`, is known once the pictures are."""
        ...

    @staticmethod
    def mark(section: Any, total: int) -> dict[str, Any]:
        """Settings that say more than their value, for the job's fingerprint."""
        ...

    @staticmethod
    def check_family(section: Any, optimizer: OptimizerSection, spec: FamilySpec) -> list[str]:
        """What of the method's settings does not fit a family, one sentence each."""
        ...

    def attach(self, family: Family, model: Model, seed: int) -> list[str]:
        """Join the model; only the method's own parameters may require gradients. Returns warnings."""
        ...

    def detach(self) -> None:
        """Leave the model as it was found; safe to call twice."""
        ...

    def report(self, family: Family, model: Model) -> BlockReport | None:
        """What is trained where, before `attach`; None where the settings already say it. ConfigError where it cannot be."""
        ...

    def groups(self) -> list[ParameterGroup]: ...

    def before_step(self, step: int, total: int) -> None:
        """Called before each optimizer step, when `step` of `total` are done.

        What is drawn by chance is a function of the seed and the step, so that a resumed run draws the same.
        """
        ...

    def before_forward(self, seeds: Sequence[int] | None = None) -> None:
        """Called before each micro-batch with its samples' seeds, and before each drawing or validation without them."""
        ...

    def after_step(self) -> Tensor | None:
        """Called after each optimizer step; returns how many layers were limited in their norm, where that is on."""
        ...

    def without(self) -> AbstractContextManager[None]:
        """Inside it the model runs as if nothing had been trained (strength 0)."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything trained, in full precision, for resuming."""
        ...

    def restore(self, tensors: dict[str, Tensor]) -> None: ...

    def artefact(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The tensors of the file that users load."""
        ...

    def metadata(self) -> dict[str, Any]:
        """kohya's `ss_network_*` facts."""
        ...

    def silent(self) -> list[str]:
        """Names of parts that have learned nothing so far."""
        ...
