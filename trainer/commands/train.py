"""`train CONFIG`"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .shared import Interrupt, add_config, read_config

HELP = "Train what a YAML or JSON file describes."


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run of this name from its saved state")
    parser.add_argument("--until-eof", action="store_true", help="stop, as Ctrl-C does, when standard input ends")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..console import ConsoleListener
    from ..distributed import team_of
    from ..run import run as run_training

    config = read_config(options)
    console = ConsoleListener()
    try:
        with Interrupt() as stop, team_of(os.environ) as team:
            if options.until_eof:
                stop.ask_at_end_of_input()
            result = run_training(config, console, stop, options.resume, team)
    finally:
        console.finish()
    if result.status == "stopped" and team.leads:
        print(f"stopped after step {result.steps}; continue with the same command and --resume", file=sys.stderr)
    return result.as_dict()
