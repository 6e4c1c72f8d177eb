"""X/Y/Z grids: which pictures there are, drawing them in the cheapest order, and the labelled sheets.

X runs across, Y down, Z from page to page; every prompt has its own pages.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..events import CellDrawn, Listener, Status, StopCheck
from .axes import Axis
from .cells import Cell, LoraUse, Painter, cheapest_order, fingerprint
from .grid import LARGEST_GRID, PAPER, SMALLEST_CELL, draw_grid
from .shelf import Shelf

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..sample import Request

_CHART = 640  # pixels that charts below a sheet are wide, at least
Place = tuple[int, int, int]  # page, row, column


@dataclass(frozen=True)
class GridPlan:
    """What a grid shows. Axes change the `tested` LoRA, or put one there; those of `beside` are in every picture as they are."""

    prompts: tuple[Request, ...]
    tested: LoraUse | None = None
    beside: tuple[LoraUse, ...] = ()
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
        cell = Cell(self.prompts[prompt], (self.tested,) if self.tested else ())
        # Files come first: other axes may change what they put.
        turns = sorted(((axis, number) for axis, number in ((self.x, column), (self.y, row), (self.z, depth)) if axis), key=_files_last)
        for axis, number in reversed(turns):
            cell = axis.put(cell, number)
        return replace(cell, loras=(*cell.loras, *self.beside))

    def without(self, place: Place) -> Cell:
        """The picture of a place without the LoRA that is tested."""
        return replace(self.cell(place), loras=self.beside)

    def labels(self, place: Place) -> list[str]:
        """The values of the axes at a place: X, Y, Z."""
        page, row, column = place
        depth = page % len(self.z.values) if self.z else 0
        return [axis.labels[number] for axis, number in ((self.x, column), (self.y, row), (self.z, depth)) if axis]

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
    """A plan with its pictures, as far as they are drawn. `marks` are their fingerprints, `plain` those without the tested LoRA."""

    plan: GridPlan
    marks: dict[Place, str]
    shelf: Shelf
    finished: bool
    plain: dict[Place, str] = field(default_factory=dict)

    def picture(self, place: Place) -> Image | None:
        return self.shelf.get(self.marks[place])

    def without(self, place: Place) -> Image | None:
        """The same without the LoRA that is tested, where that was asked for."""
        return self.shelf.get(self.plain[place]) if place in self.plain else None

    def pictures(self) -> Iterator[Image]:
        """Those that are drawn: page by page, row by row."""
        return (picture for place in self.plan.places() if (picture := self.picture(place)) is not None)

    def sheets(self, under: Callable[[int, int], Image | None] | None = None) -> Iterator[Image]:
        """Labelled sheets. A page that is too large for one is cut into several of about equal size.

        `under` is given page and width, and makes what stands below the last sheet of a page.
        """
        for page in range(self.plan.shape[0]):
            sample = next((picture for row in range(self.plan.shape[1]) if (picture := self.picture((page, row, 0)))), None)
            width, height = sample.size if sample else (SMALLEST_CELL, SMALLEST_CELL)
            parts = [(rows, columns) for rows in _parts(self.plan.shape[1], height) for columns in _parts(self.plan.shape[2], width)]
            for number, (rows, columns) in enumerate(parts, 1):
                title = self.plan.title(page) + (f" ({number}/{len(parts)})" if len(parts) > 1 else "")
                sheet = self._sheet(page, rows, columns, title)
                last = number == len(parts)
                yield stacked(sheet, under(page, max(sheet.width, _CHART)) if under and last else None)

    def _sheet(self, page: int, rows: range, columns: range, title: str) -> Image:
        cells = [[self.picture((page, row, column)) for column in columns] for row in rows]
        across, down = (
            [axis.labels[number] for number in part] if axis else () for axis, part in ((self.plan.x, columns), (self.plan.y, rows))
        )
        return draw_grid(cells, across, down, title, self.plan.footnote(page))


def draw_cells(plan: GridPlan, painter: Painter, shelf: Shelf, listen: Listener, stop: StopCheck, *, with_plain: bool = False) -> DrawnGrid:
    """Draw every picture that the shelf does not hold yet. Equal ones are drawn once; neighbours share as much as possible.

    `with_plain` draws each picture without the tested LoRA too. A stop leaves what is drawn on the shelf, and the next call
    goes on from there.
    """
    plan.check()
    cells = {place: plan.cell(place).plain() for place in plan.places()}
    others = {place: plan.without(place).plain() for place in plan.places()} if with_plain else {}
    names = {cell: f"{place_name(plan, place)}_plain" for place, cell in reversed(others.items())}
    names |= {cell: place_name(plan, place) for place, cell in reversed(cells.items())}
    known: dict[Cell, str] = {}
    for cell in names:
        identity = painter.identity(cell)
        known[cell] = fingerprint(cell, uuid.uuid4().hex if identity is None else identity)
    wanted = [*cells.values(), *dict.fromkeys(cell for cell in others.values() if cell not in set(cells.values()))]
    grid = DrawnGrid(plan, {place: known[cell] for place, cell in cells.items()}, shelf, False, {p: known[c] for p, c in others.items()})
    counts = Counter(known[cell] for cell in wanted)
    done = sum(count for mark, count in counts.items() if shelf.has(mark))
    if done:
        listen(Status(f"{done} of {len(wanted)} pictures are already drawn"))
    for cell in cheapest_order(wanted):
        mark = known[cell]
        if shelf.has(mark):
            continue
        picture = painter.draw(cell, stop)
        if picture is None:
            return grid
        shelf.put(mark, cell, names[cell], picture)
        done += counts[mark]
        listen(CellDrawn(done, len(wanted), picture))
    return replace(grid, finished=True)


def place_name(plan: GridPlan, place: Place) -> str:
    """A name for the file of a picture."""
    page, row, column = place
    labels = [axis.labels[number] for axis, number in ((plan.x, column), (plan.y, row)) if axis]
    return "_".join([str(page + 1), *labels]).replace(" ", "")


def write_sheets(grid: DrawnGrid, folder: Path, under: Callable[[int, int], Image | None] | None = None) -> list[Path]:
    """The sheets as grid.png, grid_2.png …; `under` is that of `DrawnGrid.sheets`."""
    paths = []
    for number, sheet in enumerate(grid.sheets(under), 1):
        paths.append(folder / ("grid.png" if number == 1 else f"grid_{number}.png"))
        write_picture(sheet, paths[-1])
    return paths


def write_picture(picture: Image, path: Path) -> None:
    from ..files import replacing

    with replacing(path) as temporary:
        picture.save(temporary, format="png")


def stacked(*parts: Image | None) -> Image:
    """Pictures below each other, on one page."""
    from PIL import Image as Images

    shown = [part for part in parts if part is not None]
    if len(shown) == 1:
        return shown[0]
    page = Images.new("RGB", (max(part.width for part in shown), sum(part.height for part in shown)), PAPER)
    top = 0
    for part in shown:
        page.paste(part, ((page.width - part.width) // 2, top))
        top += part.height
    return page


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
