"""What the jobs of a queue are at, for a terminal or a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import ConfigError
from ..log import LOG_FILE, last_steps
from ..reading import run_dir_in
from .folder import RUNNING, JobState, QueueFolder


@dataclass(frozen=True)
class Row:
    """One job: its file's name, its state, and what there is to say of it."""

    job: str
    state: str
    text: str

    def line(self) -> str:
        return f"{self.state:<8} {self.job}" + (f": {self.text}" if self.text else "")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def status_of(queue: QueueFolder) -> list[Row]:
    """All jobs: running, waiting in order, failed, done."""
    return [Row(job.name, job.state, _text(job)) for job in queue.jobs()]


def _text(job: JobState) -> str:
    if job.state == RUNNING:
        return _progress(job.path)
    if "error" in job.result:
        return str(job.result["error"])
    if not job.result:
        return ""
    loss = job.result.get("final_loss")
    return f"{job.result.get('steps', 0)} steps, " + (f"loss {loss:.4f}, " if loss is not None else "") + f"{job.result.get('lora')}"


def _progress(job: Path) -> str:
    """Step and loss of a running job, from its run's log."""
    try:
        log = run_dir_in(job) / LOG_FILE
    except ConfigError:
        return ""
    return progress_text(last_steps(log)) or "starting"


def progress_text(steps: Sequence[Mapping[str, Any]]) -> str:
    """For example "step 3 of 10, loss 0.1234"; the loss is the mean of the steps given."""
    return f"step {steps[-1]['step']} of {steps[-1]['total']}, loss {fmean(step['loss'] for step in steps):.4f}" if steps else ""
