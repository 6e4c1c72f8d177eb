"""`import FILE …`"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HELP = "Read settings of kohya's sd-scripts (TOML) or of the kohya_ss window (JSON) and print or save them as ours."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a .toml or .json file; several are one job, such as settings and dataset")
    parser.add_argument("--out", metavar="FILE", help="write a .yaml file instead of printing")


def run(options: argparse.Namespace) -> dict[str, Any]:
    import yaml

    from ..errors import ConfigError
    from ..files import write_text
    from ..kohya import convert, read_files

    imported = convert(read_files(Path(file) for file in options.files))
    text = yaml.safe_dump(imported.values, sort_keys=False, allow_unicode=True)
    if options.out:
        if Path(options.out).exists():
            raise ConfigError(f"--out: {options.out} exists already; choose another name. Nothing was changed")
        write_text(Path(options.out), text)
        print(f"saved {options.out}")
    else:
        print(text, end="")
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
