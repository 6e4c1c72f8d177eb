"""A queue as a folder, which needs no server and survives whatever happens to those who work on it.

    FOLDER/*.yaml, *.json     jobs that wait; they are taken in the order of their names, in which numbers count as numbers
    FOLDER/running/           a job in training, <job>.owner (who trains it) and <job>.log (what its training says)
    FOLDER/done/              the job, its log, and <job>.result.json
    FOLDER/failed/            the same; the result holds the reason

A job is added by putting its file there, removed by deleting it, reordered by renaming it; a failed one is tried again by
moving it back. It changes its state in one rename, made by whoever holds FOLDER/queue.lock, which the operating system frees
when its holder dies. A job belongs to its owner as long as the owner's heart beats: the number in its file goes up.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..files import write_bytes, write_text

JOB_FILES = (".yaml", ".yml", ".json")
RUNNING, DONE, FAILED = "running", "done", "failed"
STALE_SECONDS = 60.0  # an owner whose heart has not beaten for so long is dead
BEAT_SECONDS = 10.0


@dataclass(frozen=True)
class JobState:
    """One job: `state` is "running", "waiting", "failed" or "done"; `result` is what was recorded at its end."""

    name: str
    state: str
    path: Path
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A job that belongs to us. `resumed` says that somebody began it before."""

    path: Path  # in FOLDER/running
    owner: str
    resumed: bool

    @property
    def log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")


class QueueFolder:
    """The jobs of a folder. Any number of processes, on any machines that share it, may work on it."""

    def __init__(self, folder: Path, *, stale: float = STALE_SECONDS, now: Callable[[], float] = time.monotonic):
        self.folder = Path(folder)
        self._stale, self._now = stale, now
        self._seen: dict[tuple[str, int], float] = {}  # owner and heartbeat -> when it was first seen, by our own clock

    def add(self, name: str, text: str) -> Path:
        """Put a job at its place in the order; a name that waits already gets a number."""
        path = _free(self.folder, name)
        write_text(path, text)
        return path

    def jobs(self) -> list[JobState]:
        """Every job: running, waiting in order, failed, done."""
        places = ((RUNNING, self.folder / RUNNING), ("waiting", self.folder), (FAILED, self.folder / FAILED), (DONE, self.folder / DONE))
        return [
            JobState(path.name, state, path, _read(_result_path(path)) if state in (DONE, FAILED) else {})
            for state, place in places
            for path in _jobs_in(place)
        ]

    def claim(self) -> Claim | None:
        """The next job, ours from now on: one whose owner is dead, else the first that waits; None where there is none."""
        owner = uuid.uuid4().hex
        with self._locked():
            for path in _jobs_in(self.folder / RUNNING):
                if self._is_free(path):
                    _write_owner(path, owner, 0)
                    return Claim(path, owner, resumed=True)
            for path in _jobs_in(self.folder):
                target = _free(self.folder / RUNNING, path.name)
                _write_owner(target, owner, 0)
                try:
                    path.rename(target)
                except FileNotFoundError:  # removed just now
                    _owner_path(target).unlink(missing_ok=True)
                    continue
                return Claim(target, owner, resumed=False)
        return None

    def beat(self, claim: Claim, number: int) -> bool:
        """Show that we live; False where the job is no longer ours: it was deleted, or taken over by somebody who thought us dead."""
        with self._locked():
            if not self._is_ours(claim):
                return False
            _write_owner(claim.path, claim.owner, number)
            return True

    def finish(self, claim: Claim, result: Mapping[str, Any]) -> Path | None:
        """Record how a job ended, in done or, unless its status is "done", in failed; None where it is no longer ours."""
        with self._locked():
            if not self._is_ours(claim):
                return None
            target = _free(self.folder / (DONE if result["status"] == "done" else FAILED), claim.path.name)
            write_text(_result_path(target), json.dumps(result, ensure_ascii=False, indent=2) + "\n")
            with contextlib.suppress(FileNotFoundError):
                claim.log.replace(target.with_name(f"{target.name}.log"))
            claim.path.rename(target)
            _owner_path(claim.path).unlink(missing_ok=True)
            return target

    def release(self, claim: Claim) -> None:
        """Leave a job to whoever comes next, who goes on with it. Nothing is left of one that was deleted."""
        with self._locked():
            if self._is_ours(claim):
                _owner_path(claim.path).unlink(missing_ok=True)
            elif not claim.path.exists():
                for path in (_owner_path(claim.path), claim.log):
                    path.unlink(missing_ok=True)

    def undecided(self) -> bool:
        """Whether a running job may still turn out to have no living owner."""
        for path in _jobs_in(self.folder / RUNNING):
            found = _read(_owner_path(path))
            if not found or found.get("beat", 0) <= self._first_beat(found):  # a living process may have a dead one's number
                return True
        return False

    def _is_ours(self, claim: Claim) -> bool:
        return claim.path.is_file() and _read(_owner_path(claim.path)).get("owner") == claim.owner

    def _is_free(self, path: Path) -> bool:
        """Whether the job's owner is gone: it left, its process is dead, or its heart has stood still for too long by our own clock."""
        found = _read(_owner_path(path))
        if not found or _is_dead(found):
            return True
        seen = self._seen.setdefault((str(found["owner"]), int(found.get("beat", 0))), self._now())
        return self._now() - seen > self._stale

    def _first_beat(self, found: Mapping[str, Any]) -> int:
        """The lowest heartbeat that we have seen of an owner."""
        return min((beat for owner, beat in self._seen if owner == found["owner"]), default=int(found.get("beat", 0)))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "queue.lock"):
            yield


def _jobs_in(folder: Path) -> list[Path]:
    """The job files of a folder in order; 2 comes before 10."""
    files = [path for path in folder.glob("*") if path.suffix.lower() in JOB_FILES and not path.name.startswith(".")]
    return sorted((path for path in files if not path.name.endswith(".result.json") and path.is_file()), key=_order)


def _order(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _free(folder: Path, name: str) -> Path:
    """A path of this name, or with a number behind it, at which there is no file."""
    path, number = folder / name, 2
    while path.exists():
        path, number = folder / f"{Path(name).stem}_{number}{Path(name).suffix}", number + 1
    return path


def _owner_path(job: Path) -> Path:
    return job.with_name(f"{job.name}.owner")


def _result_path(job: Path) -> Path:
    return job.with_name(f"{job.name}.result.json")


def _write_owner(job: Path, owner: str, beat: int) -> None:
    value = {"owner": owner, "beat": beat, "host": socket.gethostname(), "pid": os.getpid()}
    write_bytes(_owner_path(job), json.dumps(value).encode(), durable=False)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether an owner is known to be dead: a process of this machine that is gone."""
    if os.name != "posix" or owner.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(owner.get("pid", 0)), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
