"""What a training method supplies to the loop."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

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
    def check_family(section: Any, spec: FamilySpec) -> list[str]:
        """What of the method's settings does not fit a family, one sentence each."""
        ...

    def attach(self, family: Family, model: Model, seed: int) -> None:
        """Join the model; only the method's own parameters may require gradients."""
        ...

    def detach(self) -> None:
        """Leave the model as it was found; safe to call twice."""
        ...

    def report(self, family: Family, model: Model) -> BlockReport | None:
        """What is trained where, before `attach`; None where the settings already say it. ConfigError where it cannot be."""
        ...

    def groups(self) -> list[ParameterGroup]: ...

    def before_forward(self, step: int | None = None) -> None:
        """Called before each micro-batch with the number of steps done, and before each drawing or validation without it.

        What is drawn by chance for a step is a function of the seed and the step, so that a resumed run draws the same.
        """
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
