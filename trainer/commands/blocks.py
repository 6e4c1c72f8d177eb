"""`blocks LORA`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import block_effects

HELP = "Show how strong a LoRA is in each block and which blocks change the picture; give blocks other weights and save the result."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lora", help="LoRA, LoCon, LoHa, LoKr or DoRA file")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--vector", default="1", metavar="TEXT", help="one number, a list, or block=number items; R and U are random")
    chosen.add_argument("--preset", metavar="NAME", help="a named vector, such as INS or OUTALL")
    parser.add_argument("--rules", default="", metavar="TEXT", help="rules blocks:elements:ratio or their names, separated by semicolons")
    parser.add_argument("--presets", action="append", default=[], metavar="FILE", help="a text file with further presets")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="save the weighted LoRA as this file")
    parser.add_argument("--png", metavar="FILE", help="draw the strength of each block, with its weight")
    block_effects.arguments(parser)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..block_weights import read_lora, read_presets, save_weighted, weight_blocks
    from ..files import require_file

    if options.out:
        require_file(Path(options.out), "--out", ".safetensors", ".sft")
    if options.png:
        require_file(Path(options.png), "--png", ".png")
    path = Path(options.lora)
    tensors, metadata = read_lora(path)
    presets = read_presets(*options.presets)
    weighted = weight_blocks(tensors, options.preset or options.vector, options.rules, presets=presets, seed=options.seed)
    print(weighted.text())
    result = weighted.as_dict()
    if options.out:
        save_weighted(Path(options.out), weighted, metadata, path.name)
        print(f"saved: {options.out}")
        result["file"] = options.out
    if options.png:
        _draw(Path(options.png), weighted, path.stem)
        print(f"picture: {options.png}")
        result["picture"] = options.png
    return result | block_effects.run(options, path, weighted)


def _draw(path: Path, weighted: Any, name: str) -> None:
    from ..files import replacing

    with replacing(path) as temporary:
        weighted.picture(name).save(temporary, format="PNG")
