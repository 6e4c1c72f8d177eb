"""The names that a text setting can take, from the trainer's own tables."""

from __future__ import annotations

from ..trainer.adapters import ADAPTERS
from ..trainer.config import AdapterSection, BaseSection, LossSection, OptimizerSection, SampleSection, ScheduleSection
from ..trainer.diffusion.losses import HUBER_SCHEDULES, LOSSES
from ..trainer.diffusion.samplers import SAMPLERS, SCHEDULERS
from ..trainer.families import FAMILIES
from ..trainer.optim.optimizers import OPTIMIZERS
from ..trainer.optim.schedules import SCHEDULES

_CHOICES = {
    (BaseSection, "family"): ["auto", *FAMILIES],
    (AdapterSection, "adapter"): list(ADAPTERS),
    (OptimizerSection, "kind"): list(OPTIMIZERS),
    (ScheduleSection, "kind"): list(SCHEDULES),
    (LossSection, "kind"): list(LOSSES),
    (LossSection, "huber_schedule"): list(HUBER_SCHEDULES),
    (SampleSection, "sampler"): list(SAMPLERS),
    (SampleSection, "scheduler"): list(SCHEDULERS),
}


def choices(section: type, field: str) -> list[str] | None:
    """The known names of a field, or None where any text is allowed."""
    return _CHOICES.get((section, field))
