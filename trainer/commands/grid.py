"""`grid CONFIG`"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared import Interrupt, add_config, read_config

if TYPE_CHECKING:
    from ..config import TrainConfig
    from ..evaluate.axes import Axis
    from ..evaluate.clip import Clip
    from ..evaluate.xyz import DrawnGrid, GridPlan

HELP = "Draw a grid of LoRA files, strengths, prompts, seeds and more with the trainer's own sampler."
_ALL_FILES = {"lora", "lora="}  # an axis of the files of --lora, or of the run


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "configuration that the files were trained with; its base and sample sections are used")
    parser.add_argument("--lora", nargs="+", metavar="FILE", help="LoRA files, patterns or run folders; default: every file of the run")
    parser.add_argument(
        "--strengths", default="0-1.2/0.2", help="numbers and ranges, the rows where no axis is given (default: %(default)s)"
    )
    for name, where in (("x", "across"), ("y", "down"), ("z", "page by page")):
        text = f"what varies {where}: strength=0.1-1.2/0.1, prompt=red,blue, lora for the files of --lora, and more; ? lists all kinds"
        parser.add_argument(f"--{name}", metavar="KIND=VALUES", help=text)
    parser.add_argument("--with", dest="stack", action="append", default=[], metavar="FILE:STRENGTH", help="a LoRA in every picture")
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="instead of the configuration's prompts; may be repeated"
    )
    parser.add_argument("--figures", action="store_true", help="measure every picture: figures.csv, heat maps below the grid, curves.png")
    parser.add_argument("--clip", metavar="PATH", help="a local CLIP model, a clip_vision file or a folder, for figures of likeness")
    parser.add_argument("--out", default="out/grid", metavar="DIR", help="folder of the results (default: %(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from .. import draw_grid
    from ..console import ConsoleListener
    from ..evaluate.clip import load_clip
    from ..evaluate.shelf import FolderShelf
    from ..evaluate.xyz import write_sheets
    from ..files import require_writable

    config = read_config(options)
    out = Path(options.out)
    plan = _plan(config, options)
    require_writable(out, "--out", make=False)
    measured = bool(options.figures or options.clip)
    likeness = load_clip(Path(options.clip)) if options.clip else None
    console = ConsoleListener()
    try:
        with Interrupt() as stop:
            shelf = FolderShelf(out / "cells", model=Path(config.base.checkpoint))
            chosen = {"precision": config.train.precision, "device": config.train.device, "shelf": shelf, "with_plain": measured}
            grid = draw_grid(config.base, plan, listen=console, stop=stop, **chosen)
    finally:
        console.finish()
    sheets, files = _measured(config, grid, out, likeness) if measured and grid.finished else (write_sheets(grid, out), [])
    print("\n".join([*(f"grid: {path}" for path in sheets), *(f"figures: {path}" for path in files)]))
    status = "done" if grid.finished else "stopped"
    return {"status": status, "grids": [str(path) for path in sheets], "figures": [str(path) for path in files]}


def _measured(config: TrainConfig, grid: DrawnGrid, out: Path, likeness: Clip | None) -> tuple[list[Path], list[Path]]:
    """Sheets with heat maps, and the files of figures."""
    from ..evaluate.figures import report_grid
    from ..evaluate.references import references_of

    report = report_grid(grid, out, references_of(config), likeness)
    for note in report.notes:
        print(note)
    return list(report.sheets), list(report.files)


def _plan(config: TrainConfig, options: argparse.Namespace) -> GridPlan:
    """Files across and strengths down, or the axes that were named."""
    from ..diffusion.samplers import SAMPLERS, SCHEDULERS
    from ..errors import ConfigError
    from ..evaluate.axes import Names, lora_axis, parse_numbers, parse_uses
    from ..evaluate.cells import LoraUse
    from ..evaluate.lora_files import find_loras, run_files
    from ..evaluate.strength import strength_plan
    from ..evaluate.xyz import GridPlan
    from ..places import run_dir_of
    from ..sample import requests

    names = Names(samplers=list(SAMPLERS), schedulers=list(SCHEDULERS))
    sample = config.sample.model_validate({**config.sample.model_dump(), "prompts": options.prompt or config.sample.prompts})
    run_dir = run_dir_of(config)
    files = [file for text in options.lora for file in find_loras(text)] if options.lora else run_files(run_dir)
    stack = parse_uses("\n".join(options.stack), names)
    given = {name: text for name in "xyz" if (text := getattr(options, name))}
    if not files and (not given or _ALL_FILES.intersection(given.values())):
        raise ConfigError(f"--lora: {str(run_dir)!r} has no saved file; train this configuration first, or name files")
    if not given:
        plan = strength_plan(files, parse_numbers(options.strengths), sample, config.dataset.resolution)
        return replace(plan, beside=stack)
    axes: dict[str, Axis] = {name: lora_axis(files) if text in _ALL_FILES else _axis(text, names) for name, text in given.items()}
    if options.lora and len(files) > 1 and not any(axis.kind == "lora" for axis in axes.values()):
        raise ConfigError(f"lora: {len(files)} files need an axis of their own, such as --x lora; or name one")
    tested = LoraUse(files[-1]) if files else None
    return GridPlan(tuple(requests(sample, config.dataset.resolution)), tested, stack, **axes)


def _axis(text: str, names: Any) -> Axis:
    from ..evaluate.axes import make_axis

    kind, _, values = text.partition("=")
    return make_axis(kind.strip(), values, names)
