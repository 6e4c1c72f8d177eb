"""Regularisation pictures drawn with the base model itself: what it takes the class for, so that a training leaves that as it is.

The class-specific prior preservation of DreamBooth, Ruiz et al. 2022, https://arxiv.org/abs/2208.12242, section 3.2.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import BaseSection, SampleSection
from .errors import ConfigError
from .evaluate.cells import Cell, fingerprint
from .evaluate.shelf import FolderShelf, mark_of
from .evaluate.strength import draw_plan
from .evaluate.xyz import GridPlan
from .events import ignore
from .files import replacing, require_writable, write_text
from .sample import requests

if TYPE_CHECKING:
    from PIL.Image import Image

    from .evaluate.xyz import DrawnGrid


_NAME_LENGTH = 16  # of a set's folder


class CaptionedShelf(FolderShelf):
    """Pictures beside their prompts as captions. The caption comes first, so that no picture is ever without one."""

    def put(self, mark: str, cell: Cell, name: str, picture: Image) -> None:
        write_text(self.path_of(mark, name).with_suffix(".txt"), cell.request.prompt)
        super().put(mark, cell, name, picture)


def draw_class_pictures(
    base: BaseSection, sample: SampleSection, resolution: tuple[int, int], folder: Path, count: int, **options: Any
) -> DrawnGrid:
    """Draw `count` pictures into `folder`, the prompts of `sample` in turn and each with the next seed, beginning with the section's.

    Pictures of the same model and settings that the folder holds are not drawn again: an interrupted call goes on, a larger
    `count` adds to them. Other files of the folder stay. `options` are those of `trainer.evaluate.strength.draw_plan`.
    """
    plan = _plan(sample, resolution, count)
    require_writable(folder, "folder", make=False)
    shelf = CaptionedShelf(folder, model=Path(base.checkpoint))
    return draw_plan(base, plan, shelf=shelf, **options)


def draw_class_set(base: BaseSection, sample: SampleSection, resolution: tuple[int, int], root: Path, count: int, **options: Any) -> Path:
    """The same into a folder below `root` that holds nothing else: it is named after the fingerprints of its pictures.

    What lies elsewhere below `root` already, as after a smaller `count`, is taken from there with its caption.
    """
    marks = _marks(base, _plan(sample, resolution, count), **options)
    folder = root / hashlib.sha256("".join(marks).encode()).hexdigest()[:_NAME_LENGTH]
    _take_over(set(marks), root, folder)
    draw_class_pictures(base, sample, resolution, folder, count, **options)
    return folder


def _plan(sample: SampleSection, resolution: tuple[int, int], count: int) -> GridPlan:
    if not sample.prompts:
        raise ConfigError("prompts: say what the class is, such as a photo of a cat")
    if count < 1:
        raise ConfigError(f"count: {count} pictures cannot be drawn; give 1 or more")
    asked = requests(sample, resolution)
    pictures = [asked[number % len(asked)] for number in range(count)]
    return GridPlan(tuple(replace(request, seed=request.seed + number) for number, request in enumerate(pictures)))


def _marks(base: BaseSection, plan: GridPlan, *, precision: str = "bf16", device: str = "auto", **_: Any) -> list[str]:
    """The fingerprints of the pictures, as they are drawn with these options."""
    from .evaluate.painter import TrainerPainter

    painter = TrainerPainter(base, precision, device, ignore)
    cells = [plan.cell(place).plain() for place in plan.places()]
    return [fingerprint(cell, painter.identity(cell)) for cell in cells]


def _take_over(marks: set[str], root: Path, folder: Path) -> None:
    """Copy pictures of these fingerprints, with their captions, into a folder that lacks them."""
    missing = marks - {mark_of(path) for path in folder.glob("*.png")}
    for path in sorted(root.rglob("*.png")):
        mark, caption = mark_of(path), path.with_suffix(".txt")
        if mark in missing and caption.is_file():
            for file in (caption, path):
                with replacing(folder / file.name, durable=False) as temporary:
                    shutil.copyfile(file, temporary)
            missing.remove(mark)
