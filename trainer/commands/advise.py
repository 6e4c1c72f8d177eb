"""`advise RUN`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .shared import Interrupt, add_settings

HELP = "Say which file of a run to use at which strength, what speaks against the others, and what to change next time."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run, its configuration file, or a LoRA that was trained here")
    parser.add_argument("--lora", nargs="+", metavar="FILE", help="LoRA files, patterns or folders; default: every file of the run")
    parser.add_argument("--strengths", default="0.25-1.5/0.25", help="numbers and ranges (default: %(default)s)")
    parser.add_argument("--trigger", default="", metavar="TEXT", help="default: the words that all captions share")
    parser.add_argument("--attribute", action="append", default=[], metavar="TEXT", help="something the training pictures do not have")
    parser.add_argument("--no-pictures", action="store_true", help="measure only; draw no grid of the over-fitting check")
    parser.add_argument("--out", metavar="DIR", help="folder of the results (default: advice in the run's folder)")
    add_settings(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from .. import load_config
    from ..console import ConsoleListener
    from ..evaluate.advise import advise
    from ..evaluate.axes import parse_numbers
    from ..evaluate.lora_files import find_loras
    from ..places import run_dir_of

    given = Path(options.run)
    config = load_config(given / "config.yaml" if given.is_dir() else given, options.set)
    folder = Path(options.out) if options.out else run_dir_of(config) / "advice"
    loras = [file for text in options.lora or () for file in find_loras(text)]
    wanted = {"loras": loras, "strengths": parse_numbers(options.strengths), "attributes": options.attribute, "trigger": options.trigger}
    console = ConsoleListener()
    try:
        with Interrupt() as stop:
            found = advise(config, folder, pictures=not options.no_pictures, listen=console, stop=stop, **wanted)
    finally:
        console.finish()
    if found is None:
        return {"status": "stopped"}
    print("\n".join([*found.advice.lines(), *(f"file: {file}" for file in found.files)]))
    return {"status": "done", "files": [str(file) for file in found.files], **found.advice.as_dict()}
