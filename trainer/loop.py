"""The step loop. It knows no family, method or optimizer by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from .checkpoint import broken_weights, not_finite
from .compiled import Compilation
from .distributed import ALONE, Team
from .errors import NonFiniteLoss, OutOfMemory, first_line
from .events import BANDS, Listener, LossNotFinite, StepDone, StopCheck, Warned
from .families import Family, Model
from .feed import Batch, Feed
from .ladder import Ladder
from .memory import is_out_of_memory, with_room
from .methods import Method
from .objective import Objective, batch_loss, timestep_of
from .optim.averaging import Averaging
from .optim.schedules import lr_multiplier
from .plan import Plan
from .precision import LossScaler, Readback, release_memory
from .progress import Clock


class Sample(NamedTuple):
    """The loss of one sample."""

    loss: float
    file: str
    seed: int


class Task(Protocol):
    """Work between steps. `run(step)` is called where `step` (the number of steps done) is due."""

    @property
    def name(self) -> str: ...

    @property
    def run(self) -> Callable[[int], None]: ...

    def due(self, step: int, plan: Plan) -> bool: ...

    def remaining(self, step: int, plan: Plan) -> int:
        """How often it is due after `step`, where that is known; the last step included."""
        ...


@dataclass(frozen=True)
class Periodic:
    """Work that is due every so many epochs or steps, and after the last step."""

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
    ladder: Ladder
    compilation: Compilation
    periodic: list[Task]
    listen: Listener
    stop: StopCheck
    team: Team = ALONE
    step: int = 0
    done_before: set[tuple[str, int]] = field(default_factory=set)  # periodic work that an earlier session already did
    torn: bool = False  # inside an update of the weights: what is in memory belongs to no step
    last_save: int = 0  # the step to which a resumed run would go back
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
            start = time.perf_counter()  # the wait for pictures is a part of the step
            if job.team.any(job.stop()) or not _step(job, next(batches), start):
                return False
    finally:
        batches.close()


def _step(job: Job, batches: list[Batch], start: float) -> bool:
    """One optimizer step; False when `stop()` became true before it, which leaves weights and optimizer untouched."""
    job.method.before_step(job.step, job.plan.total_steps)
    found = _fitting_gradients(job, batches)
    if found is None:
        job.optimizer.zero_grad(set_to_none=True)
        return False
    _require_finite(job, found)
    job.team.sum_gradients([parameter for group in job.optimizer.param_groups for parameter in group["params"]])
    limited = _update(job)
    base_loss = _base_loss(job, batches)
    seconds = time.perf_counter() - start
    job.clock.step(seconds)
    job.listen(_report(job, found, seconds, None if limited is None else int(limited), base_loss))
    return True


def _fitting_gradients(job: Job, batches: list[Batch]) -> list[Sample] | None:
    """`_gradients`, with the next measure of the ladder as often as memory does not suffice; samples of the whole team.

    OutOfMemory where no measure is left.
    """
    count = sum(job.team.gather(sum(len(batch.files) for batch in batches)))
    while True:
        found = reason = None
        try:
            found = _gradients(job, batches, count)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = f"out of memory at step {job.step + 1} ({first_line(error)})"
        # Not in the handler: the frames of the error hold the activations.
        everyone = job.team.gather((found, reason))
        reason = next((reason for _, reason in everyone if reason), None)
        if reason is None:
            parts = [part for part, _ in everyone if part is not None]
            return [sample for part in parts for sample in part] if len(parts) == len(everyone) else None
        job.optimizer.zero_grad(set_to_none=True)
        measure = job.ladder.down()
        if measure is None:
            raise OutOfMemory(f"{reason}, with one picture at a time. {job.step} steps are saved, to continue with --resume")
        release_memory(job.model.device)
        job.listen(Warned(f"{reason}: {measure}"))


def _gradients(job: Job, batches: list[Batch], count: int) -> list[Sample] | None:
    """Add up the gradients of the mean loss of `count` samples, of which these are ours; None when `stop()` became true."""
    readings = []
    pieces = [piece for whole in batches for piece in whole.pieces(job.ladder.micro_batch)]
    for batch in pieces:
        _compare_compiled(job, batch)
    for batch in pieces:
        job.method.before_forward(batch.seeds)
        with job.compilation.on():
            losses = batch_loss(job.family, job.model, batch, job.objective)
        readings.append((Readback(losses), batch))
        job.scaler.backward(losses.sum() / count)
        if job.stop():
            return None
    return [
        Sample(loss, file, seed)
        for reading, batch in readings
        for loss, file, seed in zip(reading.get(), batch.files, batch.seeds, strict=True)
    ]


def _compare_compiled(job: Job, batch: Batch) -> None:
    """Make sure, once for each shape, that the compiled network learns what the plain one does. Called while there are no gradients."""
    inputs = batch.pixels if batch.latents is None else batch.latents
    if inputs is None or not job.compilation.to_compare(inputs.shape):
        return

    parameters = [parameter for group in job.optimizer.param_groups for parameter in group["params"]]

    def gradients() -> list[torch.Tensor]:
        try:
            job.method.before_forward(batch.seeds)
            job.scaler.backward(batch_loss(job.family, job.model, batch, job.objective).sum())
            return [(torch.zeros_like(own) if own.grad is None else own.grad).to("cpu", copy=True) for own in parameters]
        finally:
            job.optimizer.zero_grad(set_to_none=True)

    if warning := job.compilation.compare(inputs.shape, gradients):
        job.listen(Warned(warning))


def _update(job: Job) -> torch.Tensor | None:
    """Change the weights; returns how many layers were limited in their norm, where that is on."""
    multiplier = lr_multiplier(job.plan.config.schedule, job.step, job.plan.total_steps)
    for group, rate in zip(job.optimizer.param_groups, job.rates, strict=True):
        group["lr"] = rate * multiplier
    job.torn = True
    try:
        job.scaler.step(job.optimizer, job.plan.config.optimizer.max_grad_norm)
        job.optimizer.zero_grad(set_to_none=True)
        limited = job.method.after_step()
        job.averaging.after_step(job.step)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = f"out of memory at step {job.step + 1}, while the weights were changed ({first_line(error)})"
        raise OutOfMemory(f"{reason}; continue from step {job.last_save} with --resume") from None
    job.step += 1
    job.torn = False
    return limited


def _require_finite(job: Job, found: list[Sample]) -> None:
    bad = [sample for sample in found if not math.isfinite(sample.loss)]
    if not bad:
        return
    step, files = job.step + 1, tuple(dict.fromkeys(sample.file for sample in bad))
    job.listen(LossNotFinite(step, job.plan.epoch_of(step), files))
    if broken := not_finite(job.method.state()):
        raise NonFiniteLoss(broken_weights(broken, job.step))
    raise NonFiniteLoss(
        f"the loss is {bad[0].loss} at step {step}; the weights were not changed by it. Pictures that gave it: {', '.join(files)}. "
        "Try train.precision bf16 or fp32, a lower optimizer.lr, or take these pictures out"
    )


def _base_loss(job: Job, batches: list[Batch]) -> float | None:
    """What the base model's own loss would have been in the step that was done last, where that is due and memory suffices."""
    every = job.plan.config.validation.base_every_steps
    if every is None or job.step % every:
        return None

    def measured() -> list[float]:
        pieces = [piece for batch in batches for piece in batch.pieces(job.ladder.micro_batch)]
        with torch.no_grad(), job.method.without():
            return [loss for piece in pieces for loss in batch_loss(job.family, job.model, piece, job.objective).tolist()]

    try:
        losses = with_room(measured, job.model.device, "measuring the base model's loss")
    except OutOfMemory as error:
        job.listen(Warned(f"{error}; it is left out at step {job.step}"))
        losses = []
    together = [loss for part in job.team.gather(losses) for loss in part]
    return sum(together) / len(together) if together else None


def _by_band(job: Job, found: list[Sample]) -> tuple[tuple[int, int, float], ...]:
    """The step's losses by parts of the timesteps, as `StepDone` holds them."""
    bands: dict[int, list[float]] = {}
    for sample in found:
        timestep = timestep_of(sample.seed, job.objective, job.model.schedule)
        bands.setdefault(timestep * BANDS // job.model.schedule.num_timesteps, []).append(sample.loss)
    return tuple((band, len(losses), sum(losses) / len(losses)) for band, losses in sorted(bands.items()))


def _report(job: Job, found: list[Sample], seconds: float, limited: int | None, base_loss: float | None) -> StepDone:
    left = {task.name: task.remaining(job.step, job.plan) for task in job.periodic}
    rates = {str(group.get("name", number)): float(group["lr"]) for number, group in enumerate(job.optimizer.param_groups)}
    total, epoch = job.plan.total_steps, job.plan.epoch_of(job.step)
    seconds_left = job.clock.seconds_left(total - job.step, left)
    loss = sum(sample.loss for sample in found) / len(found)
    return StepDone(job.step, total, epoch, loss, rates, seconds, seconds_left, limited, _by_band(job, found), base_loss)
