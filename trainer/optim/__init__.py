"""Optimizers and learning-rate schedules: two tables, and what checks and builds their rows."""

from .optimizers import OPTIMIZERS, OptimizerRow, build_optimizer, check_optimizer
from .schedules import SCHEDULES, check_schedule, lr_multiplier, warmup_steps

__all__ = [
    "OPTIMIZERS",
    "OptimizerRow",
    "SCHEDULES",
    "build_optimizer",
    "check_optimizer",
    "check_schedule",
    "lr_multiplier",
    "warmup_steps",
]
