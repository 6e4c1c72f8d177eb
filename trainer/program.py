"""The command line of this package for whatever Python runs us, wherever the package lies."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# Not `-m`: a Python that is embedded in a program, as that of ComfyUI's portable version, looks for modules neither in the
# current folder nor in PYTHONPATH.
_START = f"import sys; sys.path.insert(0, sys.argv.pop(1)); from {Path(__file__).parent.name}.cli import main; sys.exit(main())"


def trainer_command(*arguments: str) -> list[str]:
    """What `python -m trainer ARGUMENTS` means, as a list for a new process."""
    return [sys.executable, "-c", _START, str(Path(__file__).resolve().parents[1]), *arguments]


def typed(parts: Sequence[str], windows: bool = os.name == "nt") -> str:
    """A command as a line for a terminal; a Windows path holds no quotation mark."""
    if not windows:
        return shlex.join(parts)
    return " ".join(part if re.fullmatch(r"[\w:\\/.-]+", part) else f'"{part}"' for part in parts)
