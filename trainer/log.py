"""The run's log: one JSON object per event, readable while the run goes on and the source of every curve."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .events import Event, LossNotFinite, Removed, SampleReady, Saved, StepDone, Validated
from .files import write_bytes

LOG_FILE = "log.jsonl"
_TAIL_BYTES = 1 << 16
_PERIODIC = {"Saved": "save", "Validated": "validate"}


class RunLog:
    """A listener that appends every event to <run_dir>/log.jsonl."""

    def __init__(self, run_dir: Path, resume_step: int | None):
        """Start a new log, or keep what was logged up to `resume_step`; later lines belong to steps that are done again."""
        self.path = run_dir / LOG_FILE
        kept = [] if resume_step is None else [line for line in read_log(self.path) if line.get("step", 0) <= resume_step]
        write_bytes(self.path, b"".join(_line(line) for line in kept))
        self._file = self.path.open("ab", buffering=0)
        self._waiting = b""

    def __call__(self, event: Event) -> None:
        values = {item.name: _plain(getattr(event, item.name)) for item in fields(event) if item.name != "image"}
        self._waiting += _line({"event": type(event).__name__, "time": round(time.time(), 3), **values})
        # A full disk does not end the run: lines wait until there is room again.
        with contextlib.suppress(OSError):
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]

    def close(self) -> None:
        self._file.close()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _line(values: dict[str, Any]) -> bytes:
    """A file's name that is not UTF-8 keeps its bytes, as `os.fsencode` keeps them."""
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of a log; a line that a crash cut short is left out."""
    if path.is_file():
        yield from _parsed(path.read_bytes())


def _parsed(log: bytes) -> Iterator[dict[str, Any]]:
    for line in log.split(b"\n"):
        try:
            yield json.loads(line.decode("utf-8", "surrogateescape"))
        except ValueError:
            continue


def last_steps(path: Path, count: int = 20) -> list[dict[str, Any]]:
    """The lines of the last steps, without reading the whole of a long log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            tail = file.read()
    except OSError:
        return []
    return [line for line in _parsed(tail) if line.get("event") == StepDone.__name__][-count:]


@dataclass(frozen=True)
class History:
    """What a run has reported so far."""

    steps: list[int]
    losses: list[float]
    rates: dict[str, list[float]]
    bands: list[list[list[float]]]  # of each step, those of `StepDone`
    base: list[tuple[int, float]]  # (step, the base model's own loss at it)
    not_finite: list[int]  # steps whose loss was not a number; they are not among `steps`
    validation: list[tuple[int, float]]
    files: list[Path]  # each once, where it was saved last
    samples: list[Path]
    done: set[tuple[str, int]]  # saving and validating, by name and step
    drawn: Counter[int]  # how many samples, by step

    def loss_map(self) -> dict[str, Any]:
        """The losses in the form of ComfyUI's LOSS_MAP, with all else that their analysis can use.

        A step that was not finished because its loss is not a number stands at the end.
        """
        broken = [math.nan] * len(self.not_finite)
        rates = {name: [*each, *broken] for name, each in self.rates.items()}
        bands = [*self.bands, *([] for _ in broken)]
        return {"loss": [*self.losses, *broken], "validation": self.validation, "lr": rates, "bands": bands, "base": self.base}


def history(path: Path) -> History:
    """The history that a log tells."""
    result = History([], [], {}, [], [], [], [], [], [], set(), Counter())
    for line in read_log(path):
        kind = line["event"]
        if kind == StepDone.__name__:
            result.steps.append(line["step"])
            result.losses.append(line["loss"])
            for name, rate in line["lr"].items():
                result.rates.setdefault(name, []).append(rate)
            result.bands.append(line.get("bands", []))
            if line.get("base_loss") is not None:
                result.base.append((line["step"], line["base_loss"]))
        elif kind == LossNotFinite.__name__:
            result.not_finite.append(line["step"])
        elif kind == Validated.__name__:
            result.validation.append((line["step"], line["loss"]))
        elif kind == Saved.__name__ and line["kind"] != "state":
            result.files[:] = [*_without(result.files, line["path"]), Path(line["path"])]
        elif kind == Removed.__name__:
            result.files[:] = _without(result.files, line["path"])
        elif kind == SampleReady.__name__:
            result.samples.append(Path(line["path"]))
            result.drawn[line["step"]] += 1
        if kind in _PERIODIC and line.get("kind") != "state":
            result.done.add((_PERIODIC[kind], line["step"]))
    return result


def _without(files: list[Path], path: str) -> list[Path]:
    return [file for file in files if file != Path(path)]
