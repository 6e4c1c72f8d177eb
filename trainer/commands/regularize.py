"""`regularize CONFIG`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import from_home
from .shared import Interrupt, add_config, read_config

if TYPE_CHECKING:
    from ..config import TrainConfig

HELP = "Draw regularisation pictures of the class with the base model, each with its caption."
COUNT = 200


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "configuration of the training; its base and sample sections and its resolution are used")
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="the class, such as 'a photo of a cat'; several take turns; default: the class words of the regularization folder",
    )
    parser.add_argument(
        "--count", type=int, default=COUNT, help="how many; at least as many as there are training pictures (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the pictures; default: the regularization folder of the configuration")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from .. import draw_class_pictures
    from ..console import ConsoleListener
    from ..data.folders import list_folder

    config = read_config(options)
    folder, prompts = _wanted(config, options)
    sample = config.sample.model_validate(config.sample.model_dump() | {"prompts": prompts})
    console = ConsoleListener()
    try:
        with Interrupt() as stop:
            chosen = {"precision": config.train.precision, "device": config.train.device}
            drawn = draw_class_pictures(
                config.base, sample, config.dataset.resolution, folder, options.count, listen=console, stop=stop, **chosen
            )
    finally:
        console.finish()
    count = sum(drawn.shelf.has(mark) for mark in drawn.marks.values())
    print(f"{count} of {options.count} pictures in {folder}")
    others = len(list_folder(folder).pictures) - count if folder.is_dir() else 0
    if others:
        print(f"{others} other pictures in {folder} are trained on too; remove them, or choose another folder with --out")
    if not any(_is_class(item, folder) for item in config.dataset.folders):
        print(f"to train with them, add to dataset.folders: {{path: {folder}, regularization: true}}")
    return {"status": "done" if drawn.finished else "stopped", "folder": str(folder), "pictures": count, "others": others}


def _wanted(config: TrainConfig, options: argparse.Namespace) -> tuple[Path, list[str]]:
    """The folder and the prompts; what was not given comes from the configuration's regularization folder."""
    from ..errors import ConfigError

    known = [item for item in config.dataset.folders if item.regularization]
    if options.out is None and len(known) != 1:
        raise ConfigError(f"--out: name a folder; the configuration has {len(known)} regularization folders")
    folder = from_home(options.out or known[0].path)
    words = [item.class_words for item in known if _is_class(item, folder) and item.class_words]
    if not options.prompt and not words:
        raise ConfigError("--prompt: say what the class is, such as 'a photo of a cat'; the regularization folder has no class_words")
    return folder, options.prompt or words


def _is_class(item: Any, folder: Path) -> bool:
    return item.regularization and from_home(item.path) == folder
