"""What was found out about files, remembered between runs for as long as the files stay as they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL

from ..errors import OutputError
from ..files import write_bytes

VERSION = 1  # raise it when the functions that look at files find something else in the same file
SETTLED = 3.0  # seconds; a file younger than that could change again and keep its times, which some disks count in steps of 2 s

Facts = Sequence[Any]  # what JSON can hold
_Entry = tuple[list[int], Facts]


class KnownFiles:
    """Facts about the files of a folder are in `memory`/<digest of its path>.json; with None, nothing is remembered.

    A file is the same while its length and its times of writing and of any other change are. Several threads may ask.
    """

    def __init__(self, memory: Path | None):
        self._memory = memory
        self._lock = threading.Lock()
        self._folders: dict[tuple[str, str], dict[str, _Entry]] = {}  # (about, folder) -> file name -> entry
        self._new: set[tuple[str, str]] = set()

    def facts(self, path: Path, about: str, look: Callable[[Path], Facts]) -> Facts:
        """`look(path)`, or what it said of the same file before. What it raises is not remembered."""
        try:
            state = path.stat()
        except OSError:
            return look(path)
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        key = about, str(path.parent)
        entries = self._folders.get(key)
        if entries is None:
            with self._lock:
                entries = self._folders.setdefault(key, self._load(*key))
        known = entries.get(path.name)
        if known is not None and known[0] == stamp:
            return known[1]
        settled = time.time() - max(state.st_mtime, state.st_ctime) > SETTLED
        found = look(path)
        if settled:
            entries[path.name] = (stamp, found)
            self._new.add(key)
        return found

    def save(self) -> None:
        """Remember for the next run what is new; files that are gone are forgotten. Where it cannot be written, it is found out again."""
        if self._memory is None:
            return
        for about, folder in self._new:
            with contextlib.suppress(OutputError, OSError):
                present = {path.name for path in Path(folder).iterdir()}
                entries = {name: entry for name, entry in self._folders[about, folder].items() if name in present}
                text = json.dumps({"made": self._made(), "folder": folder, "files": entries})
                write_bytes(self._path(about, folder), text.encode(), durable=False)
        self._new.clear()

    def _load(self, about: str, folder: str) -> dict[str, _Entry]:
        if self._memory is None:
            return {}
        try:
            saved = json.loads(self._path(about, folder).read_bytes())
            return dict(saved["files"]) if saved["made"] == self._made() else {}
        except (OSError, ValueError, KeyError, TypeError):  # absent or damaged
            return {}

    def _path(self, about: str, folder: str) -> Path:
        assert self._memory is not None
        absolute = str(Path(folder).absolute())
        return self._memory / f"{about}-{hashlib.sha256(absolute.encode(errors='surrogateescape')).hexdigest()[:32]}.json"

    @staticmethod
    def _made() -> list[Any]:
        """Another Pillow may find damage where this one finds none."""
        return [VERSION, PIL.__version__]
