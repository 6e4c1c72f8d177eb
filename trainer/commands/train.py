"""`train CONFIG`"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .shared import Interrupt, add_config, read_config

HELP = "Train what a YAML or JSON file describes."


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run of this name from its saved state")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from .. import train
    from ..console import ConsoleListener

    config = read_config(options)
    console = ConsoleListener()
    try:
        with Interrupt() as stop:
            result = train(config, listen=console, stop=stop, resume=options.resume)
    finally:
        console.finish()
    if result.status == "stopped":
        print(f"stopped after step {result.steps}; continue with the same command and --resume", file=sys.stderr)
    return result.as_dict()
