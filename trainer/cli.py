"""The command line: one program, many commands. Exit codes: 0 done, 1 failed, 2 bad input, 130 stopped on request."""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from .commands import COMMANDS
from .errors import ConfigError, TrainerError

EXIT_CODES = {"failed": 1, "stopped": 130}  # of an answer's status; any other is 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is shown with escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments  # known even where the rest cannot be understood
    # It asks for a package that it does not need whenever diffusers imports it on a machine without a GPU.
    logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)
    try:
        options = _parser().parse_args(arguments)
        result = options.execute(options)
    except Exception as error:
        if as_json:
            print(_line({"status": "failed", "kind": type(error).__name__, "error": str(error)}))
        if not isinstance(error, TrainerError):  # a defect: who runs us sees where
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if as_json:
        print(_line(result))
    return EXIT_CODES.get(result.get("status"), 0)


def _line(answer: Mapping[str, Any]) -> str:
    return json.dumps(_finite(answer), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity; null says that there is no such number."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are bad input like any other."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise ConfigError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lora-furnace", description="Train and test LoRAs for Stable Diffusion.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP, allow_abbrev=False)
        module.arguments(sub)
        sub.add_argument("--json", action="store_true", help="make the last line of output one JSON object")
        sub.set_defaults(execute=module.run)
    return parser
