"""Optimizers and learning-rate schedules: two tables, and what checks and builds their rows."""

from .averaging import Averaging, build_averaging, check_averaging
from .optimizers import OPTIMIZERS, OptimizerRow, build_optimizer, check_optimizer, optimizer_warnings
from .schedules import SCHEDULES, check_schedule, lr_multiplier, warmup_steps

__all__ = [
    "Averaging",
    "OPTIMIZERS",
    "OptimizerRow",
    "SCHEDULES",
    "build_averaging",
    "build_optimizer",
    "check_averaging",
    "check_optimizer",
    "check_schedule",
    "lr_multiplier",
    "optimizer_warnings",
    "warmup_steps",
]
