"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no schedule state."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..config import ScheduleSection
from .names import unknown_name

# step (from 0), number of steps, section -> share of the full rate, in [0, 1]
Schedule = Callable[[int, int, ScheduleSection], float]


def lr_multiplier(section: ScheduleSection, step: int, total: int) -> float:
    """Share of the full learning rate for optimizer step `step` (from 0) of `total`; in [0, 1].

    Warm-up of W steps uses (step + 1) / (W + 1): the first step already learns, and step W is the first at the full
    rate. (transformers and diffusers use step / W, whose first step changes nothing; from step W on the values are
    equal.) The schedule then spans the remaining total - W steps.
    """
    warmup = warmup_steps(section, total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return SCHEDULES[section.kind](step - warmup, total - warmup, section)


def warmup_steps(section: ScheduleSection, total: int) -> int:
    """Steps of warm-up: `warmup` is a part of `total` below 1 and a number of steps from 1 on. `constant` has none."""
    if section.kind in WITHOUT_WARMUP:
        return 0
    return part_or_steps(section.warmup, total)


def part_or_steps(value: float, total: int) -> int:
    """A number of steps, at most `total`, from a setting that is a part of them below 1 and a number of steps from 1 on."""
    return min(int((value * total if value < 1 else value) + 0.5), total)


def check_schedule(section: ScheduleSection, total: int | None = None) -> tuple[list[str], list[str]]:
    """Problems, and warnings about settings that would have no effect. `total` steps, where known, bounds the warm-up.

    A setting at its default is never reported: it is also there when a whole configuration was written by a program.
    """
    if section.kind not in SCHEDULES:
        return [unknown_name("schedule.kind", section.kind, SCHEDULES)], []
    problems, warnings = [], []
    if section.warmup > 1 and section.warmup != int(section.warmup):
        problems.append(
            f"schedule.warmup: {section.warmup} is neither a part of all steps (below 1) nor a whole number of steps; "
            f"write {int(section.warmup)}"
        )
    elif total is not None and warmup_steps(section, total) >= total > 1:
        warnings.append(f"schedule.warmup: {section.warmup:g} covers all {total} steps, so the full rate is never reached; lower it")
    fields = ScheduleSection.model_fields
    if section.kind in WITHOUT_WARMUP and section.warmup not in (0, fields["warmup"].default):
        warnings.append(f"schedule.warmup: {section.warmup:g} has no effect with {section.kind}; use constant_with_warmup")
    for name, kinds in USED_BY.items():
        value = getattr(section, name)
        if section.kind not in kinds and value != fields[name].default:
            belongs = ", ".join(kinds)
            warnings.append(f"schedule.{name}: {value:g} has no effect with {section.kind}; it belongs to {belongs}")
    return problems, warnings


def _progress(step: int, total: int) -> float:
    return min(step / max(1, total), 1.0)


def constant(_step: int, _total: int, _section: ScheduleSection) -> float:
    """The full rate throughout."""
    return 1.0


def linear(step: int, total: int, _section: ScheduleSection) -> float:
    """1 - p for progress p: a straight line that would reach 0 one step after the last."""
    return 1.0 - _progress(step, total)


def polynomial(step: int, total: int, section: ScheduleSection) -> float:
    """(1 - p) ** power."""
    return (1.0 - _progress(step, total)) ** section.power


def cosine(step: int, total: int, _section: ScheduleSection) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * _progress(step, total)))


def cosine_with_restarts(step: int, total: int, section: ScheduleSection) -> float:
    """`cycles` equal half cosines, each starting at the full rate (arXiv 1608.03983, eq. 5)."""
    progress = _progress(step, total)
    return 0.5 * (1.0 + math.cos(math.pi * (section.cycles * progress % 1.0))) if progress < 1.0 else 0.0


SCHEDULES: dict[str, Schedule] = {
    "cosine": cosine,
    "cosine_with_restarts": cosine_with_restarts,
    "polynomial": polynomial,
    "constant": constant,
    "constant_with_warmup": constant,
    "linear": linear,
}
# `constant` means the same rate at every step, so `warmup` acts on every schedule but this one.
WITHOUT_WARMUP = ("constant",)
USED_BY = {"cycles": ("cosine_with_restarts",), "power": ("polynomial",)}
