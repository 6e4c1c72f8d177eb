"""What several commands have in common."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config import TrainConfig


def add_config(parser: argparse.ArgumentParser, help: str = "configuration file, YAML or JSON") -> None:
    """The configuration file, `--preset` to lay presets below it and `--set` to change it; `read_config` reads them."""
    parser.add_argument("config", help=f"{help}; or a LoRA that was trained here")
    parser.add_argument("--preset", action="append", default=[], metavar="NAME", help="preset below the file's values; may be repeated")
    add_settings(parser)


def read_config(options: argparse.Namespace) -> TrainConfig:
    """The configuration that the arguments of `add_config` describe. What presets did is said on the error stream, where it is known."""
    from ..errors import ConfigError, ModelFileError
    from ..reading import load_config, preset_effects

    config = load_config(options.config, options.set, options.preset)
    try:
        effects = preset_effects(config)
    except (ConfigError, ModelFileError):  # a LoRA may outlive its base model, and the name of a preset
        return config
    for preset, held, replaced in effects:
        more = f"; other values for {', '.join(entry.setting for entry in replaced)}" if replaced else ""
        print(f"preset {preset.name}: {len(held)} of {len(held) + len(replaced)} settings hold{more}", file=sys.stderr)
    return config


def add_settings(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
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
        print("stopping after this step (Ctrl-C again: at once)", file=sys.stderr, flush=True)

    def ask_at_end_of_input(self) -> None:
        """Whoever started us holds the other end of standard input: when that is gone, so is he."""

        number = sys.stdin.fileno()

        def wait() -> None:
            while os.read(number, 4096):  # not by way of sys.stdin, whose lock a thread must not hold when Python ends
                pass
            self._stopped = True

        threading.Thread(target=wait, name="end of input", daemon=True).start()

    def __call__(self) -> bool:
        return self._stopped
