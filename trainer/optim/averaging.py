"""Where the weights to look at are not the weights that are trained, but an average of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..config import OptimizerSection
from .optimizers import OPTIMIZERS


class Averaging(Protocol):
    """An average of the trained weights."""

    def after_step(self, step: int) -> None:
        """Take the weights in, after optimizer step `step` (from 0)."""
        ...

    def shown(self) -> AbstractContextManager[None]:
        """Inside it the parameters hold the average; afterwards they are, bit for bit, what they were."""
        ...

    def state(self) -> dict[str, Any]:
        """What `restore` needs beyond the weights and the optimizer's own state."""
        ...

    def restore(self, state: dict[str, Any]) -> None: ...


def build_averaging(section: OptimizerSection, decay: float | None, optimizer: torch.optim.Optimizer) -> Averaging:
    """The average that the optimizer keeps itself, or else one with `decay`; without both, the weights are their own average."""
    if OPTIMIZERS[section.kind].averages:
        return ScheduleFree(optimizer)
    return Unaveraged() if decay is None else MovingAverage(decay, _parameters(optimizer))


def check_averaging(section: OptimizerSection, decay: float | None) -> list[str]:
    """Two averages of one training have no meaning."""
    row = OPTIMIZERS.get(section.kind)
    if row is not None and row.averages and decay is not None:
        return [f"train.ema: {section.kind} averages the weights itself; leave ema unset, or choose another optimizer.kind"]
    return []


class Unaveraged:
    """The weights as they are trained."""

    def after_step(self, step: int) -> None:
        pass

    def shown(self) -> AbstractContextManager[None]:
        return nullcontext()

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


class MovingAverage:
    """average += (1 - d) · (weights - average), with d = min(decay, (1 + t) / (10 + t)) at step t from 0.

    Early on, the warm-up of d (that of TensorFlow's ExponentialMovingAverage) lets the average forget the start: 0.1 at the
    first step, 0.5 at step 8, 0.9 at step 80. Weights that are not trained at a step leave their average as it is.
    """

    def __init__(self, decay: float, parameters: list[nn.Parameter]):
        self._decay, self._parameters = decay, parameters
        self._average = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        trained = [pair for pair in zip(self._average, self._parameters, strict=True) if pair[1].requires_grad]
        torch._foreach_lerp_([average for average, _ in trained], [parameter.detach() for _, parameter in trained], 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        with _exchanged(self._parameters):
            _copy(self._parameters, self._average)
            yield

    def state(self) -> dict[str, Any]:
        return {"average": self._average}

    def restore(self, state: dict[str, Any]) -> None:
        _copy(self._average, state["average"])


class ScheduleFree:
    """The average of a schedule-free optimizer (Defazio et al. 2024, arXiv 2405.15682), which keeps it in its own state."""

    def __init__(self, optimizer: Any):
        self._optimizer = optimizer
        optimizer.train()

    def after_step(self, step: int) -> None:
        pass

    @contextmanager
    def shown(self) -> Iterator[None]:
        # The optimizer's way back from the average is rounded; the copies make drawing and saving change nothing.
        with _exchanged(_parameters(self._optimizer)):
            self._optimizer.eval()
            try:
                yield
            finally:
                self._optimizer.train()

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass  # all is in the optimizer's state, which is saved in training mode


@contextmanager
def _exchanged(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Afterwards the parameters are what they were."""
    trained = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        _copy(parameters, trained)


@torch.no_grad()
def _copy(into: list[Any], values: list[Tensor]) -> None:
    for target, value in zip(into, values, strict=True):
        target.copy_(value)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
