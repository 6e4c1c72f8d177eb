"""The step loop. It knows no family, method or optimizer by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import NonFiniteLoss
from .events import Listener, StepDone, StopCheck
from .families import Family, Model
from .feed import Batch, Feed
from .methods import Method
from .objective import Objective, batch_loss
from .optim.averaging import Averaging
from .optim.schedules import lr_multiplier
from .plan import Plan
from .precision import LossScaler, Readback
from .progress import Clock

if TYPE_CHECKING:
    import torch


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
        loss = batch_loss(job.family, job.model, batch, job.objective).sum() / samples
        readings.append((Readback(loss), batch))
        job.scaler.backward(loss)
        if job.stop():
            job.optimizer.zero_grad(set_to_none=True)
            return False
    loss = sum(_finite(reading.get(), batch, job.step + 1) for reading, batch in readings)
    multiplier = lr_multiplier(job.plan.config.schedule, job.step, job.plan.total_steps)
    for group, rate in zip(job.optimizer.param_groups, job.rates, strict=True):
        group["lr"] = rate * multiplier
    job.scaler.step(job.optimizer, job.plan.config.optimizer.max_grad_norm)
    job.optimizer.zero_grad(set_to_none=True)
    limited = job.method.after_step()
    job.averaging.after_step(job.step)
    job.step += 1
    seconds = time.perf_counter() - start
    job.clock.step(seconds)
    job.listen(_report(job, loss, seconds, None if limited is None else int(limited)))
    return True


def _finite(loss: float, batch: Batch, step: int) -> float:
    if math.isfinite(loss):
        return loss
    raise NonFiniteLoss(
        f"the loss is {loss} at step {step}; the weights were not changed by it. Pictures of this batch: {', '.join(batch.files)}. "
        "Try train.precision bf16 or fp32, a lower optimizer.lr, or take these pictures out"
    )


def _report(job: Job, loss: float, seconds: float, limited: int | None) -> StepDone:
    left = {task.name: task.remaining(job.step, job.plan) for task in job.periodic}
    rates = {str(group.get("name", number)): float(group["lr"]) for number, group in enumerate(job.optimizer.param_groups)}
    total = job.plan.total_steps
    seconds_left = job.clock.seconds_left(total - job.step, left)
    return StepDone(job.step, total, job.plan.epoch_of(job.step), loss, rates, seconds, seconds_left, limited)
