"""The step loop. It knows no family, method or optimizer by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .errors import NonFiniteLoss
from .events import BANDS, Listener, LossNotFinite, StepDone, StopCheck
from .families import Family, Model
from .feed import Batch, Feed
from .methods import Method
from .objective import Objective, batch_loss, timestep_of
from .optim.averaging import Averaging
from .optim.schedules import lr_multiplier
from .plan import Plan
from .precision import LossScaler, Readback
from .progress import Clock

Sample = tuple[float, Batch, int]  # the loss of one sample, its batch and its place there


@dataclass(frozen=True)
class Periodic:
    """Work between steps. `run(step)` is called where `step` (the number of steps done) is due, and after the last step."""

    name: str
    run: Callable[[int], None]
    every_epochs: int | None
    every_steps: int | None
    at_start: bool = False

    def due(self, step: int, plan: Plan) -> bool:
        if step == 0:
            return self.at_start
        if step == plan.total_steps:
            return True
        return any(step % period == 0 for period in self._periods(plan))

    def remaining(self, step: int, plan: Plan) -> int:
        """How often it is due after `step`, the last step included."""
        periods, last = self._periods(plan), plan.total_steps - 1
        both = [math.lcm(*periods)] if len(periods) == 2 else []
        counts = [last // period - step // period for period in periods]
        return 1 + sum(counts) - sum(last // period - step // period for period in both) if step <= last else 0

    def _periods(self, plan: Plan) -> list[int]:
        """The step counts whose multiples are due."""
        periods = [self.every_epochs * plan.steps_per_epoch] if self.every_epochs else []
        return periods + ([self.every_steps] if self.every_steps else [])


@dataclass
class Job:
    """A training that is ready to run; `step` counts the optimizer steps that are done."""

    plan: Plan
    family: Family
    model: Model
    method: Method
    feed: Feed
    objective: Objective
    optimizer: torch.optim.Optimizer
    rates: list[float]  # full learning rate of each parameter group
    scaler: LossScaler
    averaging: Averaging
    periodic: list[Periodic]
    listen: Listener
    stop: StopCheck
    step: int = 0
    done_before: set[tuple[str, int]] = field(default_factory=set)  # periodic work that an earlier session already did
    clock: Clock = field(default_factory=Clock)


def run_loop(job: Job) -> bool:
    """Train until the last step; True when it was reached, False when `stop()` ended the run at a step boundary."""
    batches = job.feed.steps_from(job.step)
    try:
        while True:
            for task in job.periodic:
                if task.due(job.step, job.plan) and (task.name, job.step) not in job.done_before:
                    with job.clock.task(task.name):
                        task.run(job.step)
            if job.step == job.plan.total_steps:
                return True
            if job.stop() or not _step(job, next(batches)):
                return False
    finally:
        batches.close()


def _step(job: Job, batches: list[Batch]) -> bool:
    """One optimizer step; False when `stop()` became true before it, which leaves weights and optimizer untouched."""
    start = time.perf_counter()
    samples = sum(len(batch.files) for batch in batches)
    readings = []
    job.method.before_step(job.step, job.plan.total_steps)
    for batch in batches:
        job.method.before_forward(batch.seeds)
        losses = batch_loss(job.family, job.model, batch, job.objective)
        readings.append((Readback(losses), batch))
        job.scaler.backward(losses.sum() / samples)
        if job.stop():
            job.optimizer.zero_grad(set_to_none=True)
            return False
    found = [(loss, batch, place) for reading, batch in readings for place, loss in enumerate(reading.get())]
    _require_finite(job, found)
    multiplier = lr_multiplier(job.plan.config.schedule, job.step, job.plan.total_steps)
    for group, rate in zip(job.optimizer.param_groups, job.rates, strict=True):
        group["lr"] = rate * multiplier
    job.scaler.step(job.optimizer, job.plan.config.optimizer.max_grad_norm)
    job.optimizer.zero_grad(set_to_none=True)
    limited = job.method.after_step()
    job.averaging.after_step(job.step)
    base_loss = _base_loss(job, batches)
    job.step += 1
    seconds = time.perf_counter() - start
    job.clock.step(seconds)
    job.listen(_report(job, found, seconds, None if limited is None else int(limited), base_loss))
    return True


def _require_finite(job: Job, found: list[Sample]) -> None:
    bad = [(loss, batch.files[place]) for loss, batch, place in found if not math.isfinite(loss)]
    if not bad:
        return
    step, files = job.step + 1, tuple(dict.fromkeys(file for _, file in bad))
    job.listen(LossNotFinite(step, job.plan.epoch_of(step), files))
    raise NonFiniteLoss(
        f"the loss is {bad[0][0]} at step {step}; the weights were not changed by it. Pictures that gave it: {', '.join(files)}. "
        "Try train.precision bf16 or fp32, a lower optimizer.lr, or take these pictures out"
    )


def _base_loss(job: Job, batches: list[Batch]) -> float | None:
    """What the base model's own loss would have been in this step, where that is due."""
    every = job.plan.config.validation.base_every_steps
    if every is None or (job.step + 1) % every:
        return None
    with torch.no_grad(), job.method.without():
        losses = torch.cat([batch_loss(job.family, job.model, batch, job.objective) for batch in batches])
    return float(losses.mean())


def _by_band(job: Job, found: list[Sample]) -> tuple[tuple[int, int, float], ...]:
    """The step's losses by parts of the timesteps, as `StepDone` holds them."""
    bands: dict[int, list[float]] = {}
    for loss, batch, place in found:
        timestep = timestep_of(batch.seeds[place], job.objective, job.model.schedule)
        bands.setdefault(timestep * BANDS // job.model.schedule.num_timesteps, []).append(loss)
    return tuple((band, len(losses), sum(losses) / len(losses)) for band, losses in sorted(bands.items()))


def _report(job: Job, found: list[Sample], seconds: float, limited: int | None, base_loss: float | None) -> StepDone:
    left = {task.name: task.remaining(job.step, job.plan) for task in job.periodic}
    rates = {str(group.get("name", number)): float(group["lr"]) for number, group in enumerate(job.optimizer.param_groups)}
    total, epoch = job.plan.total_steps, job.plan.epoch_of(job.step)
    seconds_left = job.clock.seconds_left(total - job.step, left)
    loss = sum(loss for loss, _, _ in found) / len(found)
    return StepDone(job.step, total, epoch, loss, rates, seconds, seconds_left, limited, _by_band(job, found), base_loss)
