"""`import FILE …`"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HELP = "Read settings of kohya's sd-scripts (TOML) or of the kohya_ss window (JSON) and print or save them as ours."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a .toml or .json file; several are one job, such as settings and dataset")
    parser.add_argument("--out", metavar="FILE", help="write a .yaml or .json file instead of printing")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..config.io import yaml_text
    from ..errors import ConfigError
    from ..kohya import convert, read_files
    from ..reading import save_values

    imported = convert(read_files(Path(file) for file in options.files))
    if options.out:
        if Path(options.out).exists():
            raise ConfigError(f"--out: {options.out} exists already; choose another name. Nothing was changed")
        save_values(imported.values, Path(options.out))
        print(f"saved {options.out}")
    else:
        print(yaml_text(imported.values), end="")
    print("\n".join(imported.lines()), file=sys.stderr)
    return {
        "config": imported.values,
        "file": options.out,
        "taken": imported.taken,
        "not_understood": imported.unknown,
        "no_counterpart": imported.lost,
        "not_needed": imported.needless,
        "different": imported.different,
        "missing": imported.missing,
    }
