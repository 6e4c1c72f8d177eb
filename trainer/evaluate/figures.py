"""What can be measured on each picture of a grid, as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..files import write_text
from .metrics import mean_abs_difference, psnr, ssim
from .references import Reference, References, cut_to
from .xyz import DrawnGrid, GridPlan, Place, write_picture, write_sheets

if TYPE_CHECKING:
    from PIL.Image import Image

_SMALL = (64, 64)  # pictures are compared at this size when the question is which one they look like


class Likeness(Protocol):
    """A model that sees what pictures and texts are about; see `trainer.evaluate.clip`."""

    def of_pictures(self, pictures: Sequence[Image]) -> np.ndarray:
        """Unit vectors (N, D)."""
        ...

    def of_text(self, text: str) -> np.ndarray | None:
        """A unit vector (D,), or None where the model reads no texts."""
        ...


@dataclass(frozen=True)
class Sight:
    """A picture of a grid with everything it can be compared with."""

    picture: Image
    plain: Image | None  # the same without the LoRA
    prompt: str
    references: References
    likeness: Likeness | None
    learned: np.ndarray | None  # what `likeness` sees in the training pictures

    def held_out(self) -> list[Image]:
        """References of this very prompt."""
        fitting = [item for item in self.references.held_out if item.caption.strip() == self.prompt.strip()]
        return [item.picture(self.picture.size) for item in fitting]


@dataclass(frozen=True)
class Figure:
    """One column of the table."""

    title: str
    of: Callable[[Sight], float | None]


def _change(sight: Sight) -> float | None:
    return None if sight.plain is None else mean_abs_difference(sight.picture, sight.plain)


def _mean_over_references(measure: Callable[[Image, Image], float]) -> Callable[[Sight], float | None]:
    def of(sight: Sight) -> float | None:
        values = [measure(sight.picture, reference) for reference in sight.held_out()]
        return sum(values) / len(values) if values else None

    return of


def _nearest(sight: Sight) -> float | None:
    """1 - SSIM, at a small size, to the most similar training picture or its mirror image: near 0 is a copy."""
    if not sight.references.training:
        return None
    return structure_distance(sight.picture, sight.references.training)


def _clip_likeness(sight: Sight) -> float | None:
    if sight.likeness is None or sight.learned is None:
        return None
    return float((sight.learned @ sight.likeness.of_pictures([sight.picture])[0]).mean())


def _clip_nearest(sight: Sight) -> float | None:
    if sight.likeness is None or sight.learned is None:
        return None
    return float(1 - (sight.learned @ sight.likeness.of_pictures([sight.picture])[0]).max())


def _clip_adherence(sight: Sight) -> float | None:
    text = sight.likeness.of_text(sight.prompt) if sight.likeness else None
    if sight.likeness is None or text is None:
        return None
    return float(sight.likeness.of_pictures([sight.picture])[0] @ text)


FIGURES: dict[str, Figure] = {
    "change": Figure("difference from strength 0 (grey levels)", _change),
    "psnr": Figure("PSNR to held-out pictures (dB)", _mean_over_references(psnr)),
    "ssim": Figure("SSIM to held-out pictures", _mean_over_references(ssim)),
    "nearest": Figure("distance to the nearest training picture (1 - SSIM)", _nearest),
    "clip_likeness": Figure("CLIP likeness to the training pictures", _clip_likeness),
    "clip_nearest": Figure("CLIP distance to the nearest training picture", _clip_nearest),
    "clip_adherence": Figure("CLIP adherence to the prompt", _clip_adherence),
}


@dataclass(frozen=True)
class Table:
    """Figures by place; None where one cannot be measured."""

    plan: GridPlan
    rows: dict[Place, dict[str, float | None]]

    @property
    def names(self) -> list[str]:
        """Figures that some picture has."""
        return [name for name in FIGURES if any(row[name] is not None for row in self.rows.values())]

    def csv(self) -> str:
        """One line per picture: prompt, values of the axes, figures."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        plan, names = self.plan, self.names
        axes = [axis.kind for axis in (plan.x, plan.y, plan.z) if axis]
        writer.writerow(["prompt", *axes, *names])
        for place, row in self.rows.items():
            values = [_text(row[name]) for name in names]
            writer.writerow([plan.cell(place).request.prompt, *plan.labels(place), *values])
        return stream.getvalue()

    def array(self, name: str, page: int) -> np.ndarray:
        """(rows, columns) of one page, NaN where there is no figure."""
        _, rows, columns = self.plan.shape
        values = [[self.rows.get((page, row, column), {}).get(name) for column in range(columns)] for row in range(rows)]
        return np.array([[math.nan if value is None else value for value in line] for line in values], dtype=float)

    def means(self, name: str) -> np.ndarray:
        """(rows, columns): the mean over all pages."""
        pages = np.stack([self.array(name, page) for page in range(self.plan.shape[0])])
        known = np.isfinite(pages).sum(axis=0)
        return np.where(known > 0, np.where(np.isfinite(pages), pages, 0).sum(axis=0) / np.maximum(known, 1), np.nan)


def measure_grid(grid: DrawnGrid, references: References, likeness: Likeness | None = None) -> Table:
    """All figures of every picture that is drawn."""
    rows: dict[Place, dict[str, float | None]] = {}
    learned = _vectors(likeness, references.training)
    for place in grid.plan.places():
        picture = grid.picture(place)
        if picture is not None:
            sight = Sight(picture, grid.without(place), grid.plan.cell(place).request.prompt, references, likeness, learned)
            rows[place] = {name: figure.of(sight) for name, figure in FIGURES.items()}
    return Table(grid.plan, rows)


def structure_distance(picture: Image, others: Sequence[Reference]) -> float:
    """The smallest 1 - SSIM between the middle square of the picture and that of any of the others, mirrored ones included."""
    small = np.asarray(cut_to(picture, _SMALL), dtype=float)
    return min(1 - ssim(small, view) for other in others for view in _views(other))


def usual_distance(pictures: Sequence[Reference]) -> float | None:
    """How far training pictures are from their nearest neighbours: the median. A drawn picture that is nearer is a copy."""
    if len(pictures) < 2:
        return None
    found = [
        structure_distance(picture.picture(_SMALL), [other for other in pictures if other is not picture]) for picture in pictures[:32]
    ]
    return float(np.median(found))


def copies(table: Table, usual: float | None) -> list[Place]:
    """Pictures that are nearer to a training picture than half the usual distance between two of those."""
    if usual is None:
        return []
    return [place for place, row in table.rows.items() if (distance := row["nearest"]) is not None and distance < usual / 2]


def _views(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    small = np.asarray(reference.picture(_SMALL), dtype=float)
    return small, small[:, ::-1]


def _vectors(likeness: Likeness | None, references: Sequence[Reference]) -> np.ndarray | None:
    return likeness.of_pictures([reference.picture((224, 224)) for reference in references]) if likeness and references else None


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


@dataclass(frozen=True)
class Report:
    """The files of a measured grid."""

    table: Table
    files: tuple[Path, ...]
    sheets: tuple[Path, ...]
    notes: tuple[str, ...]


def report_grid(grid: DrawnGrid, folder: Path, references: References, likeness: Likeness | None = None) -> Report:
    """Measure a grid; write its sheets with heat maps below them, figures.csv, and curves.png where an axis has an order."""
    from .charts import draw_curves, draw_heat_maps

    table = measure_grid(grid, references, likeness)
    sheets = write_sheets(grid, folder, lambda page, width: draw_heat_maps(table, page, width))
    files = [folder / "figures.csv"]
    write_text(files[0], table.csv())
    curves = draw_curves(table)
    if curves:
        files.append(folder / "curves.png")
        write_picture(curves, files[-1])
    usual = usual_distance(references.training)
    notes = []
    if copied := copies(table, usual):
        where = ", ".join(grid.plan.labels(copied[0]))
        notes.append(f"{len(copied)} pictures are nearly copies of training pictures, for example the one at {where}")
    return Report(table, tuple(files), tuple(sheets), tuple(notes))
