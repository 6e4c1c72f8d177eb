"""`demo`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .shared import Interrupt

HELP = "Train a small LoRA on the embedded base model and draw its strength grid."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="out/demo", metavar="DIR", help="folder of the results (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=None, help="fewer or more training steps")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..console import ConsoleListener
    from ..demo.run import run_demo

    console = ConsoleListener()
    try:
        with Interrupt() as stop:
            result = run_demo(Path(options.out), options.steps, console, stop)
    finally:
        console.finish()
    print("\n".join(result.lines()))
    return result.as_dict()
