"""`dylora-split LORA`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "Cut LoRAs of smaller ranks out of a DyLoRA file, each as strong as it was in training."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lora", help="file trained with method.adapter dylora")
    parser.add_argument("--ranks", type=int, nargs="+", default=[], help="default: every multiple of method.dylora_unit below the rank")
    parser.add_argument("--out", metavar="DIR", help="folder of the results; default: that of the file")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..tools.dylora_split import dylora_split

    path = Path(options.lora)
    files = dylora_split(path, Path(options.out) if options.out else path.parent, options.ranks)
    print("\n".join(map(str, files)))
    return {"status": "done", "files": [str(file) for file in files]}
