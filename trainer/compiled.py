"""torch.compile for the image network while it trains; samples and validation, whose shapes differ, go without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .config import TrainConfig
from .families import Model

BACKEND = "inductor"


class Compilation:
    """The network of a model, compiled where `on()` is entered. Without a mode, or where it cannot work, it stays as it is."""

    def __init__(self, model: Model, mode: str | None):
        self._model = model
        options: dict[str, Any] = {"mode": mode} if BACKEND == "inductor" else {}
        self._compiled: Any = torch.compile(model.unet, backend=BACKEND, **options) if mode else None

    @contextmanager
    def on(self) -> Iterator[None]:
        if self._compiled is None:
            yield
            return
        plain = self._model.unet
        self._model.unet = self._compiled
        try:
            yield
        finally:
            self._model.unet = plain


def prepare(model: Model, config: TrainConfig) -> tuple[Compilation, str | None]:
    """What the configuration asks for, and in words why it is not taken, where it is not."""
    if config.train.compile == "off":
        return Compilation(model, None), None
    reason = reason_against(config) or _failure(model.device)
    if reason:
        return Compilation(model, None), f"train.compile: not taken, for {reason}"
    return Compilation(model, config.train.compile), None


def reason_against(config: TrainConfig) -> str | None:
    """What of a configuration would have the network compiled anew at nearly every step, or not at all."""
    method, memory = config.method, config.memory
    if memory.weights != "full" or memory.offload > 0:
        return "weights that memory.weights or memory.offload store are made anew in each pass"
    if getattr(method, "module_dropout", 0):
        return "method.module_dropout leaves out other layers at each step"
    if getattr(method, "adapter", "") == "dylora":
        return "DyLoRA trains another rank at each step"
    return None


def _failure(device: torch.device) -> str | None:
    """What happens to a small network: compilers of the backend are often not installed."""
    network = nn.Sequential(nn.Linear(8, 8), nn.SiLU()).to(device)
    try:
        torch.compile(network, backend=BACKEND)(torch.ones(2, 8, device=device)).sum().backward()
    except Exception as error:
        reason = " ".join(str(error).splitlines()[:2])  # the first names the backend, the second says what it lacks
        return f"torch.compile does not work here ({reason})"
    return None
