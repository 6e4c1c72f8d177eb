"""Paths and texts as users give them, and writing files so that a reader never sees half of one."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError, OutputError

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")
_NAME_PART = 40  # letters of a file's name that its temporary name repeats


def from_home(path: str | Path) -> Path:
    """The path with `~` as the user's folder; as it is where there is no such user, so that it is named like any that is missing."""
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def unicode_of(data: bytes) -> str:
    """The encoding in which data would be Unicode: UTF-16 where they begin with its mark, as what Windows PowerShell writes, else UTF-8."""
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def read_text(path: Path) -> str:
    """The text of a file in Unicode. UnicodeDecodeError, or OSError where it cannot be read."""
    data = path.read_bytes()
    try:
        return data.decode(unicode_of(data))
    except UnicodeDecodeError as error:
        error.reason += "; save the file as UTF-8"
        raise


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there takes the name `path` when the block ends without an error.

    A `durable` file is flushed to the disk first, so that after a power cut the old or the new one is there; what can be
    made again, such as a cache entry, need not wait for that. OutputError for a full disk or a folder that cannot be
    written.
    """
    temporary = path.with_name(f".{path.name[:_NAME_PART]}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(_explain(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def clear_leftovers(folder: Path, names: Sequence[str] = ()) -> None:
    """Remove temporary files that a killed process left in `folder`: those of `names`, in which `#` stands for a digit, or all.

    Call it only while nothing else writes these files.
    """
    # Of a long name the temporary one repeats the first letters only.
    wanted = [re.compile(re.escape(name[:_NAME_PART]).replace(r"\#", r"\d")) for name in names]
    for path in folder.glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and (not wanted or any(pattern.fullmatch(found[1]) for pattern in wanted)):
            with contextlib.suppress(OSError):
                path.unlink()


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a whole file at once."""
    require_space(path.parent, len(data), str(path))
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, plain_unicode(text).encode("utf-8"))


def plain_unicode(text: str) -> str:
    """The text with what UTF-8 cannot hold, from file names in another encoding, as the escapes of JSON and YAML."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def require_writable(folder: Path, setting: str, *, make: bool = True) -> None:
    """OutputError if files cannot be made in `folder`.

    A folder that is missing is made; if it shall not be, the nearest one above it that is there is tried instead.
    """
    place = folder if make else _nearest_existing(folder)
    probe = place / f".write_test_{os.getpid()}"
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
    except OSError as error:
        raise OutputError(f"{setting}: {_explain(folder, error)}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def require_file(path: Path, setting: str, *endings: str) -> None:
    """ConfigError where a file of this name would be taken for one of another kind, OutputError where it cannot be made."""
    if path.suffix.lower() not in endings:
        raise ConfigError(f"{setting}: {path} ends in {path.suffix!r}; what is saved there ends in {' or '.join(endings)}")
    require_writable(path.parent, setting, make=False)


def require_space(folder: Path, size: int, what: str) -> None:
    """OutputError where the disk of `folder` has less than `size` bytes free; `what` needs them."""
    free = free_bytes(folder)
    if 0 < free < size:  # network disks may report 0; where it is true, writing says so
        raise OutputError(
            f"{what} could not be written: the disk is full ({size:,} bytes needed, {free:,} free); make room or choose another folder"
        )


def free_bytes(folder: Path) -> int:
    """Free space on the disk of `folder`, or of its nearest existing parent."""
    return shutil.disk_usage(_nearest_existing(folder)).free


def _nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest one above it that exists."""
    return next(candidate for candidate in (path, *path.absolute().parents) if candidate.exists())


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path} could not be written: the disk is full ({free_bytes(path.parent):,} bytes free); make room or choose another folder"
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"{path} could not be written: there is a file where a folder is needed; choose another folder"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return f"{path} could not be written: no permission; choose another folder"
    return f"{path} could not be written: {error}"
