"""`info FILE`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "Show what a LoRA is: model family, kind, ranks by block, training, tags, trigger words, and what is strange about it."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="LoRA, LoCon, LoHa, LoKr, DoRA … of any trainer")
    parser.add_argument("--base", metavar="MODEL", help="a checkpoint or diffusers folder: does the file fit it?")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..tools.info import fits, read_info

    info = read_info(Path(options.file))
    print("\n".join(info.lines()))
    result = info.as_dict()
    if options.base:
        result["fits"] = fits(Path(options.file), options.base)
        print(result["fits"])
    return result
