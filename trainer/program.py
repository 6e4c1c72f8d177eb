"""This package in a process of its own, for whatever Python runs us, wherever the package lies."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# Not `-m`: a Python that is embedded in a program, as that of ComfyUI's portable version, looks for modules neither in the
# current folder nor in PYTHONPATH.
_FIND = "import sys; sys.path.insert(0, sys.argv.pop(1)); "


def trainer_command(*arguments: str) -> list[str]:
    """What `python -m trainer ARGUMENTS` means, as a list for a new process."""
    return package_command(".cli import main; sys.exit(main())", *arguments)


def package_command(code: str, *arguments: str) -> list[str]:
    """`from PACKAGE` + `code`, which finds `arguments` in sys.argv[1:], as a list for a new process."""
    folder = Path(__file__).resolve().parent
    return [sys.executable, "-c", f"{_FIND}from {folder.name}{code}", str(folder.parent), *arguments]


def typed(parts: Sequence[str], windows: bool = os.name == "nt") -> str:
    """A command as a line for a terminal; a Windows path holds no quotation mark."""
    if not windows:
        return shlex.join(parts)
    return " ".join(part if re.fullmatch(r"[\w:\\/.-]+", part) else f'"{part}"' for part in parts)
