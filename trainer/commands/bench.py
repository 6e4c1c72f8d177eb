"""`bench`"""

from __future__ import annotations

import argparse
from typing import Any

from .shared import add_settings

HELP = "Measure seconds per step on a real-size checkpoint with random weights."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", help="family of the checkpoint, as in base.family; default the first of them")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5, help="steps that are not counted")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="out/bench", metavar="DIR", help="folder of checkpoint and pictures, which are kept")
    add_settings(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..bench import run_bench

    report = run_bench(options)
    print("\n".join(f"{name}: {value}" for name, value in report.items()))
    return report
