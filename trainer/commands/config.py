"""`config CONFIG`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .shared import add_config, read_config

HELP = "Print or save the configuration that a file, presets and --set amount to; also the one inside a LoRA that was trained here."


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--out", metavar="FILE", help="write a .yaml or .json file instead of printing")
    parser.add_argument("--full", action="store_true", help="every setting, not only those that differ from the defaults")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..config import to_yaml
    from ..errors import ConfigError
    from ..reading import save_config

    config = read_config(options)
    if options.out:
        if Path(options.out).exists():
            raise ConfigError(f"--out: {options.out} exists already; choose another name. Nothing was changed")
        save_config(config, Path(options.out), full=options.full)
        print(f"saved {options.out}")
    else:
        print(to_yaml(config, full=options.full), end="")
    return {"config": config.as_dict(full=options.full), "file": options.out}
