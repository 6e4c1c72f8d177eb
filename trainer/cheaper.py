"""Which settings would make a training fit into a device's memory."""

from __future__ import annotations

import torch

from .config import TrainConfig, from_dict
from .config.io import apply_overrides
from .estimate import MIB, estimate
from .families import Family, load_base
from .precision import DTYPES

# What saves memory, from what costs nothing but time to what costs precision too. Each is tried on top of those before it.
LADDER = (
    ("train.gradient_checkpointing=true",),
    ("dataset.batch_size=1", "train.gradient_accumulation={accumulation}"),
    ("method.train_text_encoder=false",),
    ("memory.weights=int8",),
    ("memory.weights=nf4",),
    ("memory.offload=0.8",),
)


def device_mib(device: torch.device) -> int | None:
    """Memory that a training could have: all of a GPU, what is free of the computer's; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] // MIB
    if device.type == "cpu":
        import psutil

        return psutil.virtual_memory().available // MIB
    return None


def cheaper(config: TrainConfig, family: Family, largest_bucket: tuple[int, int], device: torch.device, room: int) -> str:
    """One sentence: the settings, as `--set` takes them, with which the estimate is at most `room` MiB."""
    chosen: list[str] = []
    samples, total = config.dataset.batch_size * config.train.gradient_accumulation, 0
    for rung in LADDER:
        overrides = [text.format(accumulation=samples) for text in rung]
        changed = from_dict(apply_overrides(config.as_dict(), overrides))
        if changed == config or (changed.memory.offload and device.type == "cpu"):
            continue
        config, names = changed, {text.partition("=")[0] for text in overrides}
        chosen = [text for text in chosen if text.partition("=")[0] not in names] + overrides
        model = load_base(family, config.base, torch.device("meta"), DTYPES[config.train.precision], config.memory)
        total = estimate(config, family, model, largest_bucket).total_mib
        if total <= room:
            return f"it would fit, with {total:,} MiB, if you set {' '.join(chosen)}"
    return f"even with {' '.join(chosen)} it needs {total:,} MiB: choose a smaller dataset.resolution or another device"
