"""Regularisation pictures drawn with the base model itself: what it takes the class for, so that a training leaves that as it is.

The class-specific prior preservation of DreamBooth, Ruiz et al. 2022, https://arxiv.org/abs/2208.12242, section 3.2.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import BaseSection, SampleSection
from .errors import ConfigError
from .evaluate.cells import Cell
from .evaluate.shelf import FolderShelf
from .evaluate.strength import draw_plan
from .evaluate.xyz import GridPlan
from .sample import requests

if TYPE_CHECKING:
    from PIL.Image import Image

    from .evaluate.xyz import DrawnGrid


class CaptionedShelf(FolderShelf):
    """Pictures beside their prompts as captions. The caption comes first, so that no picture is ever without one."""

    def put(self, mark: str, cell: Cell, name: str, picture: Image) -> None:
        path = self.path_of(mark, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(cell.request.prompt, encoding="utf-8")
        super().put(mark, cell, name, picture)


def draw_class_pictures(
    base: BaseSection, sample: SampleSection, resolution: tuple[int, int], folder: Path, count: int, **options: Any
) -> DrawnGrid:
    """Draw `count` pictures into `folder`, the prompts of `sample` in turn and each with the next seed, beginning with the section's.

    Pictures of the same model and settings that the folder holds are not drawn again: an interrupted call goes on, a larger
    `count` adds to them. Other files of the folder stay. `options` are those of `trainer.evaluate.strength.draw_plan`.
    """
    if not sample.prompts:
        raise ConfigError("prompts: say what the class is, such as a photo of a cat")
    if count < 1:
        raise ConfigError(f"count: {count} pictures cannot be drawn; give 1 or more")
    asked = requests(sample, resolution)
    pictures = [asked[number % len(asked)] for number in range(count)]
    plan = GridPlan(tuple(replace(request, seed=request.seed + number) for number, request in enumerate(pictures)))
    return draw_plan(base, plan, shelf=CaptionedShelf(folder, model=Path(base.checkpoint)), **options)
