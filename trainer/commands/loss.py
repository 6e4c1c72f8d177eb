"""`loss RUN`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "Say in words what a run's losses show, and draw its loss curve."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="folder of a run (it holds log.jsonl), its configuration file, or a LoRA that was trained here"
    )
    parser.add_argument("--png", metavar="FILE", help="draw the curve there")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..errors import ConfigError
    from ..evaluate.curves import draw_loss_map
    from ..evaluate.losses import analyse_loss_map
    from ..files import require_file
    from ..log import LOG_FILE, history

    if options.png:
        require_file(Path(options.png), "--png", ".png")
    folder = _run_folder(Path(options.run))
    past = history(folder / LOG_FILE)
    if not past.steps and not past.not_finite:
        raise ConfigError(f"RUN: {folder / LOG_FILE} does not exist or holds no step; give the folder of a run that has begun")
    report = analyse_loss_map(past.loss_map())
    print("\n".join([*report.lines(), *report.band_lines()]))
    if options.png:
        draw_loss_map(options.png, past.loss_map(), folder.name)
        print(f"curve: {options.png}")
    return report.as_dict() | {"curve": options.png}


def _run_folder(given: Path) -> Path:
    """A folder is the run itself; a configuration names it."""
    if given.is_file():
        from ..reading import run_dir_in

        return run_dir_in(given)
    return given
