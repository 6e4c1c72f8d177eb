"""Working on a queue: one job after another, each in a process of its own, so that whatever happens to it happens to it alone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..events import StopCheck
from ..program import trainer_command
from .folder import BEAT_SECONDS, Claim, QueueFolder

Say = Callable[[str], None]
Command = Callable[[Path], Sequence[str]]

POLL_SECONDS = 0.5
KILLED_AGAIN = 2  # a process that dies of a signal (the system's out-of-memory killer …) is started again so many times
BUSY_SECONDS = 600.0  # a training of a queue that died may still be saving its work
STOPPED = 130


@dataclass
class Counts:
    """What became of the jobs of one call."""

    done: int = 0
    failed: int = 0
    stopped: bool = False


def training(job: Path) -> list[str]:
    """The command that trains a job. It goes on where there is something to go on with, and stops when we are no longer there."""
    return trainer_command("train", str(job), "--resume", "--until-eof", "--json")


def run_queue(
    queue: QueueFolder,
    stop: StopCheck,
    say: Say,
    *,
    watch: bool = False,
    command: Command = training,
    beat_seconds: float = BEAT_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> Counts:
    """Train the folder's jobs until none is left or, with `watch`, until `stop()`. A stopped job is left for the next call."""
    counts = Counts()
    while not stop():
        claim = queue.claim()
        if claim is None:
            if not watch and not queue.undecided():
                return counts
            time.sleep(poll_seconds)
            continue
        say(f"{claim.path.name}: {'going on' if claim.resumed else 'started'}; what it says is in {claim.log}")
        with _beating(queue, claim, beat_seconds) as lost:
            result = _train(claim, lambda: stop() or lost.is_set(), command, poll_seconds)
        if result is None:
            queue.release(claim)
            say(f"{claim.path.name}: {'it was removed or taken over' if lost.is_set() else 'stopped, to go on with later'}")
            continue
        if queue.finish(claim, result):
            counts.done += result["status"] == "done"
            counts.failed += result["status"] != "done"
        say(f"{claim.path.name}: {result['status']}" + (f", {result['error']}" if "error" in result else ""))
    counts.stopped = True
    return counts


def _train(claim: Claim, stop: StopCheck, command: Command, poll_seconds: float) -> dict[str, Any] | None:
    """What is to be recorded of a job; None where it was stopped."""
    started, deaths, busy_until = time.time(), 0, time.monotonic() + BUSY_SECONDS
    while True:
        before = claim.log.stat().st_size if claim.log.is_file() else 0
        code = _run(command(claim.path), claim.log, stop, poll_seconds)
        said = claim.log.read_bytes()[before:].decode("utf-8", "replace").splitlines()
        last = _last_answer(said)
        result = {**last, "started": round(started, 3), "seconds": round(time.time() - started, 3)}
        if code == 0:
            return {**result, "status": "done"}
        if stop():
            return None
        if code < 0 and deaths < KILLED_AGAIN:
            deaths += 1
        elif last.get("kind") == "RunFolderBusy" and time.monotonic() < busy_until:
            time.sleep(poll_seconds)
        else:
            return {**result, "status": "failed", "error": _reason(code, last, said)}


def _run(command: Sequence[str], log: Path, stop: StopCheck, poll_seconds: float) -> int:
    """Exit code of a process that is asked to end, by the end of its input, once `stop()` is true. It has Ctrl-C not from us."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.closing(process.stdin) as alive:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(poll_seconds)
            if stop():
                alive.close()


@contextlib.contextmanager
def _beating(queue: QueueFolder, claim: Claim, seconds: float) -> Iterator[threading.Event]:
    """The heart of an owner, in a thread; the event says that the job is no longer ours."""
    ended, lost = threading.Event(), threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(seconds):
            number += 1
            with contextlib.suppress(Exception):  # a disk that is full or away for a moment; the next beat may succeed
                if not queue.beat(claim, number):
                    lost.set()
                    return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()


def _last_answer(said: list[str]) -> dict[str, Any]:
    """The JSON object that the command line printed last."""
    for line in reversed(said):
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                return dict(json.loads(line))
    return {}


def _reason(code: int, last: dict[str, Any], said: list[str]) -> str:
    if code < 0:
        return f"its process was ended {KILLED_AGAIN + 1} times by signal {-code}"
    if code == STOPPED:
        return "it was stopped from outside; its work is saved, put the job back to go on"
    if "error" in last:
        return str(last["error"])
    lines = [line for line in said if line.strip()]
    return f"exit code {code}" + (f": {lines[-1]}" if lines else "")
