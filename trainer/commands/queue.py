"""`queue FOLDER`"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .shared import Interrupt, add_settings

HELP = "Train the job files of a folder one after another; files can be added, renamed and removed while it runs."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of YAML or JSON files; the order is that of their names")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--watch", action="store_true", help="wait for more when all are done, until Ctrl-C")
    only.add_argument("--status", action="store_true", help="only print what is running, waiting, done and failed")
    only.add_argument("--add", action="append", default=[], metavar="FILE", help="only put a configuration file into the folder")
    parser.add_argument("--preset", action="append", default=[], metavar="NAME", help="preset below the values of the files added")
    add_settings(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..queue import QueueFolder, run_queue
    from ..queue.status import status_of

    _check(options)
    queue = QueueFolder(options.folder)
    for file in options.add:
        print(f"added {_add(queue, Path(file), options)}")
    if options.add:
        return {"status": "done"}
    if options.status:
        rows = status_of(queue)
        print("\n".join(row.line() for row in rows) or f"{options.folder} holds no jobs")
        return {"status": "done", "jobs": [row.as_dict() for row in rows]}
    with Interrupt() as stop:
        counts = run_queue(queue, stop, lambda text: print(text, file=sys.stderr, flush=True), watch=options.watch)
    print(f"{counts.done} done, {counts.failed} failed", file=sys.stderr)
    status = "stopped" if counts.stopped else "failed" if counts.failed else "done"
    return {"status": status, "done": counts.done, "failed": counts.failed}


def _check(options: argparse.Namespace) -> None:
    """ConfigError for settings that would do nothing, and for a folder that nobody means to make."""
    from ..errors import ConfigError

    idle = [name for name in ("preset", "set") if getattr(options, name)]
    if idle and not options.add:
        raise ConfigError(f"--{idle[0]}: acts only together with --add")
    if options.folder.exists() and not options.folder.is_dir():
        raise ConfigError(f"folder: {options.folder} is a file; give the folder of the queue, and the file with --add")
    if not (options.folder.exists() or options.add or options.watch):
        raise ConfigError(f"folder: {options.folder} does not exist; --add FILE makes it")


def _add(queue: Any, file: Path, options: argparse.Namespace) -> Path:
    """A file is read first, so that a mistake shows now and not in the night; it is written resolved."""
    from ..config import to_yaml
    from ..reading import load_config

    return queue.add(f"{file.stem}.yaml", to_yaml(load_config(str(file), options.set, options.preset), full=False))
