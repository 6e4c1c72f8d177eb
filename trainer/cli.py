"""The command line: one program, many commands. Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped with the work saved."""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
from collections.abc import Sequence

from .commands import COMMANDS
from .errors import TrainerError

STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is shown with escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    # It asks for a package that it does not need whenever diffusers imports it on a machine without a GPU.
    logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)
    try:
        result = options.execute(options)
    except TrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        if options.json:
            print(json.dumps({"status": "failed", "kind": type(error).__name__, "error": str(error)}, ensure_ascii=False))
        return error.exit_code
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    return STOPPED if result.get("status") == "stopped" else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lora-furnace", description="Train and test LoRAs for Stable Diffusion.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.arguments(sub)
        sub.add_argument("--json", action="store_true", help="make the last line of output one JSON object")
        sub.set_defaults(execute=module.run)
    return parser
