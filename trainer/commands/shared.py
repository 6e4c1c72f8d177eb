"""What several commands have in common."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any


def add_config(parser: argparse.ArgumentParser, help: str = "configuration file, YAML or JSON") -> None:
    """The configuration file, and `--set` to change it."""
    parser.add_argument("config", help=help)
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change one setting; may be repeated")


class Interrupt:
    """A stop check that Ctrl-C and SIGTERM switch on; a second Ctrl-C ends the program at once."""

    def __init__(self) -> None:
        self._stopped = False

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: Any) -> None:
        if self._stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stopped = True
        print("stopping after this step; the work will be saved (Ctrl-C again: at once)", file=sys.stderr)

    def __call__(self) -> bool:
        return self._stopped
