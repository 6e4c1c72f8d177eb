"""`methods`"""

from __future__ import annotations

import argparse
from typing import Any

HELP = "Compare training methods: file size, memory, time, best use."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", action="append", metavar="NAME", help="model family; may be repeated (default: all)")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapters (default: %(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..errors import ConfigError
    from ..families import FAMILIES
    from ..methods.chooser import as_dicts, method_table, table_lines

    names = options.family or list(FAMILIES)
    if unknown := [name for name in names if name not in FAMILIES]:
        raise ConfigError(f"--family {unknown[0]}: unknown; known: {', '.join(FAMILIES)}")
    if not 1 <= options.rank <= 1024:
        raise ConfigError(f"--rank {options.rank}: give a number from 1 to 1024")
    rows = method_table([FAMILIES[name] for name in names], options.rank)
    print("\n".join(table_lines(rows, options.rank)))
    return {"rank": options.rank, "methods": as_dicts(rows)}
