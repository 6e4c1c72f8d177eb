"""What a terminal shows while a training runs: a progress bar, or plain lines where the output is no terminal."""

from __future__ import annotations

import sys
from collections import deque
from statistics import fmean
from typing import Any, TextIO

from .events import (
    BlocksPlanned,
    CacheProgress,
    CellDrawn,
    DatasetScanned,
    Event,
    Finished,
    LossNotFinite,
    Measured,
    Removed,
    SampleReady,
    Saved,
    Status,
    StepDone,
    Validated,
    Warned,
)

LOSSES_SHOWN = 20  # the displayed loss is the mean of this many steps
RATES_SHOWN = 3  # more groups than these are shown as a range
LINES_PER_RUN = 10  # without a terminal, a line is printed about so often


class ConsoleListener:
    """A listener for `train(listen=...)`. Call `finish()` when the run has ended, however it ended."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._losses: deque[float] = deque(maxlen=LOSSES_SHOWN)
        self._bar: Any = None
        self._bar_name = ""
        self._tenth = -1

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case StepDone():
                self._step(event)
            case CacheProgress(kind, done, total):
                self._count(f"caching {kind}", f"cached {kind}", done, total)
            case CellDrawn(done, total):
                self._count("drawing", "pictures drawn", done, total)
            case Measured(done, total):
                self._count("measuring", "measurements", done, total)
            case Finished():
                self.finish()
                self._line(finished_text(event))
            case _:
                self._line(event_text(event))

    def finish(self) -> None:
        """Close the bar, if one is open; may be called more than once."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _step(self, event: StepDone) -> None:
        self._losses.append(event.loss)
        text = step_text(event, fmean(self._losses))
        if self._terminal:
            self._progress("training", event.step, event.total, text)
        elif self._is_due(event.step, event.total):
            self._line(f"step {event.step}/{event.total} ({event.step / event.total:.0%}), {text}")

    def _count(self, doing: str, finished: str, done: int, total: int) -> None:
        if self._terminal:
            self._progress(doing, done, total, "")
            if done >= total:
                self.finish()
        elif done >= total:
            self._line(f"{finished}: {total}")

    def _progress(self, name: str, done: int, total: int, text: str) -> None:
        from tqdm import tqdm

        if self._bar is None or self._bar_name != name:
            self.finish()
            layout = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
            # A resumed run starts in the middle: `initial` keeps those steps from counting as progress.
            self._bar = tqdm(desc=name, total=total, initial=done - 1, file=self._stream, bar_format=layout, dynamic_ncols=True)
            self._bar_name = name
        self._bar.total = total
        self._bar.postfix = text
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.refresh()

    def _is_due(self, step: int, total: int) -> bool:
        """Whether a plain line is due: at the first step seen, and whenever a further tenth is complete."""
        tenth = step * LINES_PER_RUN // total
        due = tenth != self._tenth
        self._tenth = tenth
        return due

    def _line(self, text: str) -> None:
        """One line above the bar. A terminal that lacks a letter shows its code instead of ending the run."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        if self._terminal:
            from tqdm import tqdm

            tqdm.write(text, file=self._stream)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def step_text(event: StepDone, loss: float) -> str:
    """For example "epoch 2, loss 0.1234, lr 1.0e-04, ETA 1:23"."""
    parts = [f"epoch {event.epoch}", f"loss {loss:.4f}"]
    rates = set(event.lr.values())
    if len(rates) == 1:
        parts.append(f"lr {rates.pop():.1e}")
    elif len(event.lr) > RATES_SHOWN:
        parts.append(f"lr {min(rates):.1e} to {max(rates):.1e}")
    else:
        parts += [f"lr {name} {rate:.1e}" for name, rate in event.lr.items()]
    if event.limited is not None:
        parts.append(f"{event.limited} layers limited")
    if event.seconds_left is not None:
        parts.append(f"ETA {duration(event.seconds_left)}")
    return ", ".join(parts)


def event_text(event: Event) -> str:
    """One line for an event that is not progress."""
    match event:
        case Status(text):
            return text
        case Warned(text):
            return f"warning: {text}"
        case BlocksPlanned(_, text):
            return text
        case DatasetScanned(images, skipped):
            return f"{images} pictures" + (f", {skipped} skipped" if skipped else "")
        case SampleReady(step, _, prompt, path):
            return f"sample at step {step}: {path} ({shortened(prompt)})"
        case LossNotFinite(step, _, files):
            return f"the loss of step {step} is not a number: {', '.join(files)}"
        case Validated(step, _, loss):
            return f"validation at step {step}: loss {loss:.4f}"
        case Saved(step, _, kind, path):
            return f"saved {kind} at step {step}: {path}"
        case Removed(_, path):
            return f"removed {path}"
        case _:
            return str(event)


def finished_text(event: Finished) -> str:
    """The last line of a run."""
    where = f": {event.artefact}" if event.artefact else ""
    return f"{event.status} after {event.steps} steps{where}"


def duration(seconds: float) -> str:
    """1:23 for 83 seconds, 2:03:04 with hours."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def shortened(text: str, length: int = 60) -> str:
    """`text` on one line, with an ellipsis where it is longer than `length`."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."
