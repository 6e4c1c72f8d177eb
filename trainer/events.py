"""What a running training tells the outside: frozen values, never tensors or models.

A listener is any callable that takes one event. An error that a listener raises ends the run (after clean-up).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BANDS = 10  # equal parts of the timesteps, by which losses are told apart


@dataclass(frozen=True)
class Status:
    """The run entered a new stage; `text` is one line for a person."""

    text: str


@dataclass(frozen=True)
class DatasetScanned:
    """The pictures were read and sorted into buckets. `report` is `trainer.data.report.DatasetReport.as_dict()`."""

    images: int
    skipped: int
    report: dict[str, Any]


@dataclass(frozen=True)
class BlocksPlanned:
    """Blocks of the model train differently: `rows` holds block, modules, multiplier, rate, rank and alpha of each."""

    rows: list[dict[str, Any]]
    text: str  # the same as a table for a person


@dataclass(frozen=True)
class CacheProgress:
    """`done` of `total` items of one cache ("latents" or "text") are ready."""

    kind: str
    done: int
    total: int


@dataclass(frozen=True)
class StepDone:
    """One optimizer step. `step` counts from 1; `lr` maps parameter-group name to rate; `seconds` is this step alone,
    with the wait for its pictures.

    `bands` are the equal parts of the timesteps, of `BANDS`, from which samples were drawn: (part from 0, samples, mean loss).
    """

    step: int
    total: int
    epoch: int
    loss: float
    lr: dict[str, float]
    seconds: float
    seconds_left: float | None = None
    limited: int | None = None  # layers whose change was scaled down to method.max_norm
    bands: tuple[tuple[int, int, float], ...] = ()
    base_loss: float | None = None  # the base model's own loss on the same noised pictures, at some steps


@dataclass(frozen=True)
class LossNotFinite:
    """The loss of a step was not a number, which ends the run. `files` are the pictures that gave it."""

    step: int
    epoch: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class SampleReady:
    """A sample picture was drawn; `image` is a PIL image and `path` the file that holds it."""

    step: int
    epoch: int
    prompt: str
    path: Path
    image: Any = field(compare=False, repr=False)


@dataclass(frozen=True)
class Validated:
    """Mean loss over the held-out pictures at fixed noise and timesteps."""

    step: int
    epoch: int
    loss: float


@dataclass(frozen=True)
class Saved:
    """A file was written under its final name. `kind` is "lora" (or another artefact kind) or "state"."""

    step: int
    epoch: int
    kind: str
    path: Path


@dataclass(frozen=True)
class Removed:
    """An older numbered file was deleted, as save.keep_last asks."""

    step: int
    path: Path


@dataclass(frozen=True)
class CellDrawn:
    """`done` of `total` pictures of a grid are drawn; `image` is the newest, a PIL image."""

    done: int
    total: int
    image: Any = field(compare=False, repr=False)


@dataclass(frozen=True)
class Measured:
    """`done` of `total` measurements are done."""

    done: int
    total: int


@dataclass(frozen=True)
class Warned:
    """Something a person should know; the run goes on."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The last event of every run that ended without an error."""

    status: str
    artefact: Path | None
    steps: int


Event = (
    Status
    | DatasetScanned
    | BlocksPlanned
    | CacheProgress
    | StepDone
    | LossNotFinite
    | SampleReady
    | Validated
    | Saved
    | Removed
    | CellDrawn
    | Measured
    | Warned
    | Finished
)
Listener = Callable[[Event], None]
StopCheck = Callable[[], bool]


def ignore(_event: Event) -> None:
    """The listener of a caller who does not want to know."""


def never() -> bool:
    """The stop check of a caller who never stops a run."""
    return False
