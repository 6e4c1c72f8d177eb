"""Which settings would make a training fit into a device's memory."""

from __future__ import annotations

import torch

from .config import TrainConfig, from_dict
from .config.io import apply_overrides
from .errors import ConfigError
from .estimate import MIB, estimate
from .families import Family, load_base
from .precision import DTYPES

# What saves memory, from what costs nothing but time to what costs precision too, as `--set` takes it.
LADDER = (
    "train.gradient_checkpointing=true",
    "memory.micro_batch=1",
    "method.train_text_encoder=false",
    "memory.weights=int8",
    "memory.weights=nf4",
    "memory.offload=0.8",
)


def device_mib(device: torch.device) -> int | None:
    """Memory that a training could have: all of a GPU, what is free of the computer's; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] // MIB
    if device.type == "cpu":
        import psutil

        return psutil.virtual_memory().available // MIB
    return None


def advice(config: TrainConfig, device: torch.device) -> str:
    """One sentence for a job that did not fit, without an estimate."""
    return "What needs less: " + ", ".join(
        [*_left(config, device), "a smaller dataset.resolution", "fewer other programs on the same device"]
    )


def cheaper(config: TrainConfig, family: Family, largest_bucket: tuple[int, int], device: torch.device, room: int) -> str:
    """One sentence: the settings, as `--set` takes them, with which the estimate is at most `room` MiB."""
    chosen: list[str] = []
    total = 0
    for setting in _left(config, device):
        changed = _with(config, setting)
        model = load_base(family, changed.base, torch.device("meta"), DTYPES[changed.train.precision], changed.memory)
        try:
            total = estimate(changed, family, model, largest_bucket).total_mib
        except ConfigError:  # method.include and exclude leave no layer to train
            continue
        config = changed
        chosen = [text for text in chosen if _name(text) != _name(setting)] + [setting]
        if total <= room:
            return f"it would fit, with {total:,} MiB, if you set {' '.join(chosen)}"
    if not chosen:
        return "choose a smaller dataset.resolution or another device"
    return f"even with {' '.join(chosen)} it needs {total:,} MiB: choose a smaller dataset.resolution or another device"


def _left(config: TrainConfig, device: torch.device) -> list[str]:
    """The settings of the ladder that a job has not taken, nor one beyond them, and that act on the device."""
    left: list[str] = []
    for setting in LADDER:
        if _name(setting) == "memory.offload" and (device.type == "cpu" or config.memory.offload):
            continue
        if _name(setting) == "memory.micro_batch" and config.dataset.batch_size == 1:
            continue
        if _name(setting) == "method.train_text_encoder" and not config.method.train_unet:
            continue
        if _with(config, setting) == config:
            left = [text for text in left if _name(text) != _name(setting)]
        else:
            left.append(setting)
    return left


def _with(config: TrainConfig, setting: str) -> TrainConfig:
    return from_dict(apply_overrides(config.as_dict(), [setting]))


def _name(setting: str) -> str:
    return setting.partition("=")[0]
