"""Between a running trainer and ComfyUI: a thread of its own, events shown on the node, Cancel."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from statistics import fmean
from threading import Event as Flag
from threading import Thread
from typing import Any, TypeVar

from ..trainer.console import LOSSES_SHOWN, event_text, finished_text, step_text
from ..trainer.errors import forget_frames
from ..trainer.events import (
    BlocksPlanned,
    CacheProgress,
    CellDrawn,
    Event,
    Finished,
    Listener,
    Measured,
    SampleReady,
    Status,
    StepDone,
    StopCheck,
    Warned,
)
from . import host

log = logging.getLogger(__name__)
Result = TypeVar("Result")
TEXTS_PER_SECOND = 4
PREVIEW_PIXELS = 512  # longest side of the picture shown on the node


class Cancel:
    """ComfyUI's Cancel button as the trainer's stop check. It remembers, because a progress bar clears the flag when it raises."""

    def __init__(self) -> None:
        self._seen = Flag()

    def __call__(self) -> bool:
        if host.interrupted():
            self._seen.set()
        return self._seen.is_set()

    def set(self) -> None:
        self._seen.set()


class NodeDisplay:
    """A listener that shows a run on its node: progress bar, newest picture, one line of text."""

    def __init__(self, node_id: str):
        self._node_id = node_id
        self._bar: Any = None
        self._stage, self._step, self._total = "", 0, 1
        self._losses: deque[float] = deque(maxlen=LOSSES_SHOWN)
        self._seconds: deque[float] = deque(maxlen=LOSSES_SHOWN)
        self._last_text = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case StepDone(step=step, total=total):
                self._losses.append(event.loss)
                self._seconds.append(event.seconds)
                self._progress("training", step, total)
                self._text(f"step {step}/{total}, {step_text(event, fmean(self._losses))}, {self._speed()}", due=step == total)
            case CacheProgress(kind=kind, done=done, total=total):
                self._progress(kind, done, total)
                self._text(f"encoding {kind} {done}/{total}", due=done == total)
            case SampleReady(image=image):
                self._progress("training", self._step, self._total, image)
            case CellDrawn(done=done, total=total, image=image):
                self._progress("cells", done, total, image)
                self._text(f"picture {done}/{total}", due=True)
            case Measured(done=done, total=total):
                self._progress("measurements", done, total)
                self._text(f"measurement {done}/{total}", due=done == total)
            case Status(text=text):
                self._text(text, due=True)
            case BlocksPlanned(text=text):
                log.info("LoRA Furnace:\n%s", text)  # the node shows it only until the next line
                self._text(text, due=True)
            case Finished(status="stopped"):
                self._text(f"{finished_text(event)}; queue the same again to go on", due=True)
            case Warned(text=text):
                log.warning("LoRA Furnace: %s", text)
            case _:
                log.info("LoRA Furnace: %s", event_text(event))

    def _progress(self, stage: str, done: int, total: int, image: Any = None) -> None:
        if stage != self._stage:
            self._bar, self._stage = host.ProgressBar(total, node_id=self._node_id), stage
        self._step, self._total = (done, total) if stage == "training" else (0, 1)
        self._bar.update_absolute(done, total, ("JPEG", image, PREVIEW_PIXELS) if image else None)

    def _speed(self) -> str:
        seconds = fmean(self._seconds)
        return f"{1 / seconds:.2f} it/s" if 0 < seconds < 1 else f"{seconds:.1f} s/it"

    def _text(self, text: str, due: bool) -> None:
        if due or time.monotonic() - self._last_text > 1 / TEXTS_PER_SECOND:
            self._last_text = time.monotonic()
            host.show_text(text, self._node_id)


def run_beside(work: Callable[[Listener, StopCheck], Result], show: Listener, *, free: bool = True) -> Result:
    """Run `work(listen, stop)` in a fresh thread and show its events in this one; then raise ComfyUI's interrupt if there was one.

    A prompt runs under torch's inference mode, in which nothing can be trained; the mode belongs to the thread.
    Before and after, ComfyUI's models leave the device, unless `free` is false. What goes wrong in showing costs no work.
    """
    events: SimpleQueue[Event | None] = SimpleQueue()
    future: Future[Result] = Future()
    cancel = Cancel()

    def body() -> None:
        try:
            future.set_result(work(events.put, cancel))
        except BaseException as error:
            forget_frames(error)  # ComfyUI keeps the error while it looks at it; it must not keep the model
            future.set_exception(error)
        finally:
            events.put(None)

    if free:
        host.free_memory()
    Thread(target=body, name="LoRA Furnace", daemon=True).start()
    broken = False
    try:
        while (event := events.get()) is not None:
            try:
                show(event)
            except host.Interrupted:
                cancel.set()
            except Exception as error:
                if not broken:
                    log.warning("LoRA Furnace: the node cannot show everything, its work goes on: %s", error, exc_info=True)
                broken = True
        result = future.result()
    finally:
        if free:
            host.free_memory()
    if cancel():
        host.raise_interrupt()
    return result
