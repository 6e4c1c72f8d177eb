"""`images RUN`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .shared import Interrupt, add_config, read_config

HELP = "Find training pictures that behave oddly: outliers and wrong captions, by their loss with and without LoRA and caption."


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "folder of a run, or a configuration")
    parser.add_argument("--lora", metavar="FILE", help="the LoRA to measure with; default: the newest file of the run, if there is one")
    parser.add_argument("--out", metavar="DIR", help="folder of images.csv and images.png (default: the run's folder)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..console import ConsoleListener
    from ..evaluate.image_losses import measure_images
    from ..files import require_writable
    from ..log import LOG_FILE, history
    from ..places import run_dir_of

    if Path(options.config).is_dir():
        options.config = str(Path(options.config) / "config.yaml")
    config = read_config(options)
    run_dir = run_dir_of(config)
    saved = [file for file in history(run_dir / LOG_FILE).files if file.is_file()]
    lora = Path(options.lora) if options.lora else saved[-1] if saved else None
    folder = Path(options.out) if options.out else run_dir
    require_writable(folder, "--out", make=False)
    console = ConsoleListener()
    try:
        with Interrupt() as stop:
            report = measure_images(config, lora, listen=console, stop=stop)
    finally:
        console.finish()
    if report is None:
        return {"status": "stopped"}
    print(f"measured with {lora}" if lora else "measured with the base model alone; --lora FILE tells more")
    print("\n".join(report.lines()))
    table, sheet = report.write(folder)
    print(f"table: {table}\npictures: {sheet}")
    return report.as_dict() | {"status": "done", "table": str(table), "sheet": str(sheet)}
