"""X/Y/Z grids: which pictures there are, drawing them in the cheapest order, and the labelled sheets.

X runs across, Y down, Z from page to page; every prompt has its own pages.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..events import CellDrawn, Listener, Status, StopCheck
from .axes import Axis
from .cells import Cell, LoraUse, Painter, cheapest_order, fingerprint
from .grid import LARGEST_GRID, SMALLEST_CELL, draw_grid
from .shelf import Shelf

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..sample import Request

Place = tuple[int, int, int]  # page, row, column


@dataclass(frozen=True)
class GridPlan:
    """What a grid shows. The first of `loras` is the one that axes change; the others are in every picture."""

    prompts: tuple[Request, ...]
    loras: tuple[LoraUse, ...] = ()
    x: Axis | None = None
    y: Axis | None = None
    z: Axis | None = None

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in (self.x, self.y, self.z) if axis)

    @property
    def shape(self) -> Place:
        """Pages, rows, columns."""
        columns, rows, pages = (len(axis.values) if axis else 1 for axis in (self.x, self.y, self.z))
        return len(self.prompts) * pages, rows, columns

    def places(self) -> Iterator[Place]:
        pages, rows, columns = self.shape
        return ((page, row, column) for page in range(pages) for row in range(rows) for column in range(columns))

    def cell(self, place: Place) -> Cell:
        """The picture of a place. ConfigError where an axis cannot be applied to it."""
        page, row, column = place
        prompt, depth = divmod(page, len(self.z.values) if self.z else 1)
        cell = Cell(self.prompts[prompt], self.loras)
        # Files come first: other axes may change what they put.
        turns = sorted(((axis, number) for axis, number in ((self.x, column), (self.y, row), (self.z, depth)) if axis), key=_files_last)
        for axis, number in reversed(turns):
            cell = axis.put(cell, number)
        return cell

    def check(self) -> None:
        """ConfigError lists what cannot be drawn."""
        problems = [] if self.prompts else ["prompts: a grid needs at least one prompt"]
        counts = Counter(axis.kind for axis in self.axes)
        problems += [f"axes: {kind} stands on {count} axes; give each its own" for kind, count in counts.items() if count > 1]
        if not problems:
            for place in self.places():
                try:
                    missing = [use.file for use in self.cell(place).loras if not use.file.is_file()]
                except ConfigError as error:
                    problems += error.problems
                else:
                    problems += [f"loras: {file} is not a file" for file in missing]
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))

    def title(self, page: int) -> str:
        """The prompt, and the value of the Z axis."""
        prompt, depth = divmod(page, len(self.z.values) if self.z else 1)
        value = self.z.labels[depth] if self.z else ""
        searched = self.z is not None and self.z.kind == "prompt"
        text = self.cell((page, 0, 0)).request.prompt if searched else self.prompts[prompt].prompt
        return text if searched or not value else f"{text}\n{value}" if text else value

    def footnote(self, page: int) -> str:
        """The settings that no axis changes."""
        cell = self.cell((page, 0, 0))
        varied = {axis.kind for axis in self.axes}
        request = cell.request
        parts = {
            "seed": f"seed {request.seed}",
            "steps": f"{request.steps} steps",
            "cfg": f"cfg {request.cfg:g}",
            "sampler": request.sampler,
            "scheduler": request.scheduler,
        }
        names = [parts[name] for name in ("sampler", "scheduler") if name not in varied]
        items = [parts[name] for name in ("seed", "steps", "cfg") if name not in varied] + ([" / ".join(names)] if names else [])
        uses = [_use_text(use, varied if number == 0 else set()) for number, use in enumerate(cell.loras)]
        return " · ".join(filter(None, [*items, *uses]))


@dataclass(frozen=True)
class DrawnGrid:
    """A plan with its pictures, as far as they are drawn; `marks` are their fingerprints."""

    plan: GridPlan
    marks: dict[Place, str]
    shelf: Shelf
    finished: bool

    def picture(self, place: Place) -> Image | None:
        return self.shelf.get(self.marks[place])

    def pictures(self) -> Iterator[Image]:
        """Those that are drawn: page by page, row by row."""
        return (picture for place in self.plan.places() if (picture := self.picture(place)) is not None)

    def sheets(self) -> Iterator[Image]:
        """Labelled sheets. A page that is too large for one is cut into several of about equal size."""
        for page in range(self.plan.shape[0]):
            sample = next((picture for row in range(self.plan.shape[1]) if (picture := self.picture((page, row, 0)))), None)
            width, height = sample.size if sample else (SMALLEST_CELL, SMALLEST_CELL)
            parts = [(rows, columns) for rows in _parts(self.plan.shape[1], height) for columns in _parts(self.plan.shape[2], width)]
            for number, (rows, columns) in enumerate(parts, 1):
                title = self.plan.title(page) + (f" ({number}/{len(parts)})" if len(parts) > 1 else "")
                yield self._sheet(page, rows, columns, title)

    def _sheet(self, page: int, rows: range, columns: range, title: str) -> Image:
        cells = [[self.picture((page, row, column)) for column in columns] for row in rows]
        across, down = (
            [axis.labels[number] for number in part] if axis else () for axis, part in ((self.plan.x, columns), (self.plan.y, rows))
        )
        return draw_grid(cells, across, down, title, self.plan.footnote(page))


def draw_cells(plan: GridPlan, painter: Painter, shelf: Shelf, listen: Listener, stop: StopCheck) -> DrawnGrid:
    """Draw every picture that the shelf does not hold yet. Equal ones are drawn once; neighbours share as much as possible.

    A stop leaves what is drawn on the shelf, and the next call goes on from there.
    """
    plan.check()
    cells = {place: plan.cell(place).plain() for place in plan.places()}
    known: dict[Cell, str] = {}
    for cell in dict.fromkeys(cells.values()):
        identity = painter.identity(cell)
        known[cell] = fingerprint(cell, uuid.uuid4().hex if identity is None else identity)
    marks = {place: known[cell] for place, cell in cells.items()}
    first = {cell: place for place, cell in reversed(cells.items())}
    counts = Counter(marks.values())
    total = len(cells)
    done = sum(count for mark, count in counts.items() if shelf.has(mark))
    if done:
        listen(Status(f"{done} of {total} pictures are already drawn"))
    for cell in cheapest_order(list(cells.values())):
        mark = known[cell]
        if shelf.has(mark):
            continue
        picture = painter.draw(cell, stop)
        if picture is None:
            return DrawnGrid(plan, marks, shelf, False)
        shelf.put(mark, cell, place_name(plan, first[cell]), picture)
        done += counts[mark]
        listen(CellDrawn(done, total, picture))
    return DrawnGrid(plan, marks, shelf, True)


def place_name(plan: GridPlan, place: Place) -> str:
    """A name for the file of a picture."""
    page, row, column = place
    labels = [axis.labels[number] for axis, number in ((plan.x, column), (plan.y, row)) if axis]
    return "_".join([str(page + 1), *labels]).replace(" ", "")


def write_sheets(grid: DrawnGrid, folder: Path, name: str = "grid") -> list[Path]:
    """The sheets as grid.png, grid_2.png …"""
    from ..files import replacing

    paths = []
    for number, sheet in enumerate(grid.sheets(), 1):
        paths.append(folder / (f"{name}.png" if number == 1 else f"{name}_{number}.png"))
        with replacing(paths[-1]) as temporary:
            sheet.save(temporary, format="png")
    return paths


def _files_last(turn: tuple[Axis, int]) -> bool:
    return turn[0].kind == "lora"


def _use_text(use: LoraUse, varied: set[str]) -> str:
    """What of a LoRA no axis changes."""
    words = [] if "lora" in varied else [use.file.stem]
    words += [] if "strength" in varied else [f"strength {use.strength:g}"]
    words += [] if use.strength_clip is None or "strength_clip" in varied else [f"CLIP strength {use.strength_clip:g}"]
    return " ".join(words)


def _parts(count: int, pixels: int) -> Sequence[range]:
    """`count` cells of `pixels` in as few groups as fit a sheet, of about equal length."""
    most = max(1, LARGEST_GRID // max(pixels, SMALLEST_CELL))
    number = -(-count // most)
    return [range(count * part // number, count * (part + 1) // number) for part in range(number)]
