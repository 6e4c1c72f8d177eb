"""`grid CONFIG`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .shared import Interrupt, add_config, read_config

HELP = "Draw a strength grid of LoRA files with the trainer's own sampler."


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "configuration that the files were trained with; its base and sample sections are used")
    parser.add_argument("--lora", nargs="+", metavar="FILE", help="LoRA files; default: every file of the run")
    parser.add_argument("--strengths", default="0-1.2/0.2", help="numbers and ranges (default: %(default)s)")
    parser.add_argument("--out", default="out/grid", metavar="DIR", help="folder of the results (default: %(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from .. import strength_test
    from ..console import ConsoleListener
    from ..evaluate.strength import parse_strengths, write_pictures
    from ..log import LOG_FILE, history
    from ..preflight import run_dir_of

    config = read_config(options)
    files = [Path(file) for file in options.lora or ()] or list(dict.fromkeys(history(run_dir_of(config) / LOG_FILE).files))
    console = ConsoleListener()
    try:
        with Interrupt() as stop:
            strengths = parse_strengths(options.strengths)
            test = strength_test(
                config.base, files, strengths, config.sample, config.dataset.resolution,
                precision=config.train.precision, device=config.train.device, listen=console, stop=stop,
            )  # fmt: skip
    finally:
        console.finish()
    pictures = write_pictures(test, Path(options.out))
    print("\n".join(f"grid: {path}" for path in pictures))
    return {"status": "done" if test.finished else "stopped", "grids": [str(path) for path in pictures]}
