"""The names that a text setting can take, from the tables of the plug-in kinds."""

from __future__ import annotations

from .adapters import ADAPTERS
from .diffusion.losses import HUBER_SCHEDULES, LOSSES
from .diffusion.samplers import SAMPLERS, SCHEDULERS
from .families import FAMILIES
from .optim.optimizers import OPTIMIZERS
from .optim.schedules import SCHEDULES

CHOICES: dict[str, tuple[str, ...]] = {
    "base.family": ("auto", *FAMILIES),
    "method.adapter": tuple(ADAPTERS),
    "optimizer.kind": tuple(OPTIMIZERS),
    "schedule.kind": tuple(SCHEDULES),
    "loss.kind": tuple(LOSSES),
    "loss.huber_schedule": tuple(HUBER_SCHEDULES),
    "sample.sampler": tuple(SAMPLERS),
    "sample.scheduler": tuple(SCHEDULERS),
}
