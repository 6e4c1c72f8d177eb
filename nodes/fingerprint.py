"""Notices that files have changed, without reading them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..trainer.errors import TrainerError


def fingerprint(paths: Iterable[Path]) -> str:
    """A digest over name, size and time of every file that is, or lies below, one of the paths; empty where there is none."""
    lines = []
    for path in paths:
        for file in sorted(_files(path)):
            stat = file.stat()
            lines.append(f"{file}|{stat.st_size}|{stat.st_mtime_ns}\n")
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest() if lines else ""


def named(find: Callable[..., Path | Iterable[Path]], *names: str | None) -> list[Path]:
    """What `find` gives for a widget's text. Nothing where there is no such file, or the text is a link.

    For IS_CHANGED, which is given None for a link, or no value at all. The node behind the link says whether it has changed.
    """
    if None in names:
        return []
    try:
        found = find(*names)
        return [found] if isinstance(found, Path) else list(found)
    except (OSError, ValueError, TrainerError):
        return []


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
