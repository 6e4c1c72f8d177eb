"""The work between steps: saving, validating, drawing samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .checkpoint import State, artefact_path, outdated, save_artefact, save_state
from .errors import OutOfMemory, OutputError, TrainerError
from .evaluate.curves import draw_loss_map
from .events import Listener, Removed, SampleReady, Saved, StopCheck, Validated, Warned
from .families import Family, Model
from .feed import Feed
from .files import replacing
from .log import LOG_FILE, History, history
from .loop import Job, Periodic, Task
from .memory import with_room
from .metadata import build
from .methods import Method
from .plan import Plan
from .precision import DTYPES
from .sample import Prompts, Request, draw
from .validate import validation_loss


@dataclass(frozen=True)
class Keeper:
    """Knows where the results of a run go."""

    plan: Plan
    family: Family
    model: Model
    method: Method
    feed: Feed
    prompts: Prompts
    requests: list[Request]
    run_dir: Path
    mark: dict[str, Any]  # the job's fingerprint
    started: float
    tell: Listener
    stop: StopCheck

    def history(self) -> History:
        return history(self.run_dir / LOG_FILE)

    def save(self, job: Job, *, last: bool = False) -> None:
        """The state to resume from, then the artefact under its epoch or step name, then the curve.

        A run that is killed between the two resumes at this step and writes the artefact then. A file that cannot be written
        leaves the one before as it is: a warning while the run goes on and may write it later, an error at its end.
        """
        problems = []
        for write, what in ((self.save_state, "saving the state"), (self._save_artefact, "saving the LoRA")):
            try:
                with_room(lambda write=write: write(job), self.model.device, what)
            except (OutputError, OutOfMemory) as error:
                problems.append(error)
        if problems and last:
            raise problems[0]
        for problem in problems:
            self.tell(Warned(f"{problem}. The training goes on, what was saved before is whole"))
        self.curve()

    def save_state(self, job: Job) -> None:
        """The state alone."""
        parts = (self.method.state(), job.optimizer.state_dict(), job.scaler.state(), job.averaging.state(), job.ladder.state())
        path = save_state(self.run_dir, State(job.step, *parts), self.mark)
        job.last_save = job.step
        self.tell(Saved(job.step, self.plan.epoch_of(job.step), "state", path))

    def _save_artefact(self, job: Job) -> None:
        config, step, epoch = self.plan.config, job.step, self.plan.epoch_of(job.step)
        path = self._artefact_path(step)
        metadata = build(self.plan, self.model, self.method.metadata(), self.started, time.time(), step)
        with job.averaging.shown():
            save_artefact(path, self.method.artefact(DTYPES[config.save.dtype]), metadata)
            silent = self.method.silent()
        self.tell(Saved(step, epoch, self.method.artefact_kind, path))
        self._remove_outdated(step)
        if silent:
            self.tell(Warned(f"{path.name}: {len(silent)} layers have learned nothing, for example {silent[0]}"))

    def done_before(self) -> set[tuple[str, int]]:
        """The work between steps that an earlier session did, by name and step; if its last file was deleted, that is not done."""
        past = self.history()
        step = past.steps[-1] if past.steps else 0
        lost = set() if self._artefact_path(step).is_file() else {("save", step)}
        return (past.done - lost) | {("sample", at) for at, count in past.drawn.items() if count >= len(self.requests)}

    def save_unsaved(self, job: Job, first: int) -> None:
        """Save where the loop ended, unless it did nothing since `first` or has just saved."""
        if job.step > first and ("save", job.step) not in self.history().done:
            self.save(job, last=True)

    def rescue(self, job: Job, first: int) -> None:
        """The same after an error, which must not be hidden by another one."""
        try:
            self.save_unsaved(job, first)
        except TrainerError as error:
            self.tell(Warned(str(error)))

    def validate(self, step: int) -> None:
        def measured() -> float | None:
            return validation_loss(self.family, self.model, self.method, self.feed, self.stop)

        try:
            loss = with_room(measured, self.model.device, "measuring the validation loss")
        except OutOfMemory as error:
            self.tell(Warned(f"{error}; it is left out at step {step}"))
            return
        if loss is not None:
            self.tell(Validated(step, self.plan.epoch_of(step) if step else 0, loss))

    def sample(self, step: int) -> None:
        """Draw every sample that a killed session has not drawn; a failure is a warning, never the end of the run."""
        drawn = set(self.history().samples)
        for number, request in enumerate(self.requests):
            path = self.run_dir / "samples" / f"step{step:08d}_{number:02d}.png"
            if path in drawn:
                continue
            try:
                with torch.no_grad():
                    self.method.before_forward()
                image = with_room(
                    lambda request=request: draw(self.family, self.model, self.prompts, request, self.stop), self.model.device, "drawing"
                )
                if image is None:
                    return
                with replacing(path) as temporary:
                    image.save(temporary, format="png")
            except (RuntimeError, OutputError, OutOfMemory) as error:
                self.tell(Warned(f"the sample {request.prompt!r} could not be drawn: {error}"))
                continue
            self.tell(SampleReady(step, self.plan.epoch_of(step) if step else 0, request.prompt, path, image))

    def _artefact_path(self, step: int) -> Path:
        config, plan = self.plan.config, self.plan
        if step == plan.total_steps:
            return artefact_path(config)
        if config.save.every_epochs and step % (plan.steps_per_epoch * config.save.every_epochs) == 0:
            return artefact_path(config, epoch=plan.epoch_of(step))
        return artefact_path(config, step=step)

    def _remove_outdated(self, step: int) -> None:
        """The newest file is safely written; a file that cannot be removed is a warning."""
        for path in outdated(self.plan.config, self.history().files):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self.tell(Warned(f"{path} could not be removed: {error.strerror or error}"))
            else:
                self.tell(Removed(step, path))

    def curve(self) -> None:
        """Draw the loss over the steps so far."""
        past = self.history()
        if past.steps:
            title = self.plan.config.save.name
            path = self.run_dir / "loss.png"
            try:
                draw_loss_map(path, past.loss_map(), title)
            except (ValueError, OutputError) as error:
                self.tell(Warned(f"the loss curve could not be drawn: {error}"))


class Autosave:
    """Saves the state where none was saved for so many seconds: what a crash costs is bounded in time, however long an epoch is."""

    name = "autosave"

    def __init__(self, keeper: Keeper, job: Job, seconds: float):
        self._keeper, self._job, self._seconds = keeper, job, seconds
        self.restart()

    def restart(self) -> None:
        self._due_at = time.monotonic() + self._seconds

    def due(self, step: int, plan: Plan) -> bool:
        return 0 < step < plan.total_steps and time.monotonic() >= self._due_at

    def remaining(self, step: int, plan: Plan) -> int:  # noqa: ARG002
        return 0  # steps do not tell

    def run(self, step: int) -> None:  # noqa: ARG002
        try:
            with_room(lambda: self._keeper.save_state(self._job), self._job.model.device, "saving the state")
        except (OutputError, OutOfMemory) as error:
            self._keeper.tell(Warned(f"{error}. The training goes on, the state before is whole"))
        self.restart()


def periodic_work(keeper: Keeper, job: Job) -> list[Task]:
    """What is done between steps, in order: saving comes first, so that a failing preview costs nothing.

    Validation and samples look at the averaged weights, as the saved files hold them.
    """

    def averaged(work: Callable[[int], None]) -> Callable[[int], None]:
        def run(step: int) -> None:
            with job.averaging.shown():
                work(step)

        return run

    def saved(step: int) -> None:
        keeper.save(job, last=step == keeper.plan.total_steps)
        autosave.restart()

    save, validate, sample = (getattr(keeper.plan.config, name) for name in ("save", "validation", "sample"))
    autosave = Autosave(keeper, job, math.inf if save.every_minutes is None else save.every_minutes * 60)
    tasks: list[Task] = [Periodic("save", saved, save.every_epochs, save.every_steps), autosave]
    if keeper.plan.held_out:
        tasks.append(Periodic("validate", averaged(keeper.validate), validate.every_epochs, validate.every_steps, at_start=True))
    if keeper.requests:
        tasks.append(Periodic("sample", averaged(keeper.sample), sample.every_epochs, sample.every_steps, sample.at_start))
    return tasks
