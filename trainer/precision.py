"""Devices, number formats and the scaling of fp16 losses."""

from __future__ import annotations

from typing import Any

import torch

from .errors import ConfigError, first_line

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """`auto` is the accelerator that torch can use, else the CPU. ConfigError for a device that is not there."""
    if name == "auto":
        # Of an accelerator it was built for torch speaks also where there is none: the usual build on a machine without a GPU.
        accelerator = (
            torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") and torch.accelerator.is_available() else None
        )
        if accelerator is not None:
            return accelerator
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"train.device: {name!r} cannot be used ({first_line(error)}); try auto or cpu") from None
    return device


class LossScaler:
    """Dynamic loss scaling (Micikevicius et al. 2017, arXiv 1710.03740), which only fp16 needs; inactive otherwise."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.active = dtype == torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.active)
        self._scaler.scale(torch.ones((), device=device))  # its scale is there from the start, also where a step has no loss to scale

    def backward(self, loss: torch.Tensor) -> None:
        """Add to the gradients; a loss that nothing trained had a part in, as where all layers are dropped, has none."""
        if loss.requires_grad:
            self._scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        """Unscale, clip the gradients' total length, and step; a step without or with overflown gradients is left out."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        if self.active:
            self._scaler.unscale_(optimizer)
        if max_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        if state:
            self._scaler.load_state_dict(state)


class Readback:
    """A few numbers on their way from the device to the host without stopping the device.

    `get` waits only until they were computed, not for the work that was queued after it.
    """

    def __init__(self, value: torch.Tensor):
        self._event = None
        self._host = value.detach()
        if value.device.type == "cuda":
            self._host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self._host.copy_(value.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def get(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()


def release_memory(device: torch.device) -> None:
    """Return cached device memory to the system."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type in ("mps", "xpu"):
        getattr(torch, device.type).empty_cache()
