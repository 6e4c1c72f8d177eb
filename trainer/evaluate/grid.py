"""Pictures in rows and columns with labels, legible from 8-pixel cells to 2048-pixel ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .fonts import load_font

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

SMALLEST_CELL = 128  # pixels on the longer side; smaller pictures are enlarged
LARGEST_GRID = 16384  # pixels on the longer side of the cells together; larger grids are reduced
SMALLEST_TEXT = 11  # pixels
CLOSING = "，。、；：！？）》〉」』】〕”’…,.;:!?)]}%"  # never begins a line
OPENING = "（《〈「『【〔“‘([{"  # never ends one
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)


@dataclass(frozen=True)
class Label:
    """A text broken into lines for one font; `height` is what it covers, in pixels."""

    lines: tuple[str, ...]
    font: FreeTypeFont
    line_height: int

    @property
    def height(self) -> int:
        return self.line_height * len(self.lines)

    def draw(self, on: ImageDraw, left: float, top: float, width: float, *, align: str = "centre", fill=INK) -> None:
        """Draw inside the box that begins at (left, top) and is `width` wide."""
        for number, line in enumerate(self.lines):
            spare = width - self.font.getlength(line)
            shift = {"left": 0.0, "centre": spare / 2, "right": spare}[align]
            on.text((left + shift, top + number * self.line_height), line, font=self.font, fill=fill)


def draw_grid(
    cells: Sequence[Sequence[Image | None]],
    column_labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    title: str = "",
    footnote: str = "",
) -> Image:
    """One picture of all `cells` (rows of equal length; None leaves a gap).

    Every picture keeps its shape and stands in the middle of its cell. Labels are wrapped and made smaller, never cut;
    a row grows where its label needs it.
    """
    from PIL import Image as Images
    from PIL import ImageDraw

    _check(cells, column_labels, row_labels)
    width, height = _cell_size(cells)
    gap = max(4, round(max(width, height) / 48))
    size = min(48, max(14, round(max(width, height) / 18)))

    columns = [_fit(text, width, size, max_lines=4) for text in column_labels]
    side_width = _row_label_width(row_labels, width, size)
    rows = [_fit(text, side_width, size, max_lines=max(1, height // (size + 4))) for text in row_labels]
    heights = [max(height, rows[number].height if rows else 0) for number in range(len(cells))]

    body_width = (side_width + 2 * gap if rows else 0) + len(cells[0]) * (width + gap) - gap
    page_width = max(body_width, 320 if title or footnote else 0) + 4 * gap
    heading = _fit(title, page_width - 4 * gap, round(size * 1.25), max_lines=3)
    foot = _fit(footnote, page_width - 4 * gap, max(SMALLEST_TEXT, round(size * 0.8)), max_lines=6)
    top = 2 * gap + (heading.height + gap if title else 0)
    head = max((label.height for label in columns), default=-gap) + gap
    page_height = top + head + sum(heights) + gap * (len(heights) - 1) + (2 * gap + foot.height if footnote else 0)

    page = Images.new("RGB", (page_width, page_height + 2 * gap), PAPER)
    pen = ImageDraw.Draw(page)
    left = (page_width - body_width) // 2
    first = left + (side_width + 2 * gap if rows else 0)
    if title:
        heading.draw(pen, 2 * gap, 2 * gap, page_width - 4 * gap)
    for number, label in enumerate(columns):
        label.draw(pen, first + number * (width + gap), top + head - gap - label.height, width)
    y = top + head
    for number, row in enumerate(cells):
        if rows:
            rows[number].draw(pen, left, y + (heights[number] - rows[number].height) / 2, side_width, align="right")
        for column, picture in enumerate(row):
            _place(page, pen, picture, (first + column * (width + gap), y, width, heights[number]), (width, height))
        y += heights[number] + gap
    if footnote:
        foot.draw(pen, 2 * gap, y + gap, page_width - 4 * gap, align="left", fill=FAINT)
    return page


def _check(cells: Sequence[Sequence[object]], column_labels: Sequence[str], row_labels: Sequence[str]) -> None:
    lengths = {len(row) for row in cells}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"a grid needs rows of one length, got rows of {sorted(lengths) or 'no'} cells")
    for name, labels, count in (("column", column_labels, max(lengths)), ("row", row_labels, len(cells))):
        if labels and len(labels) != count:
            raise ValueError(f"{count} {name}s need {count} labels, got {len(labels)}")


def _cell_size(cells: Sequence[Sequence[Image | None]]) -> tuple[int, int]:
    """Width and height of every cell: the largest picture's, within the limits above."""
    sizes = [picture.size for row in cells for picture in row if picture is not None]
    width, height = (max((size[axis] for size in sizes), default=SMALLEST_CELL) for axis in (0, 1))
    scale = max(1.0, SMALLEST_CELL / max(width, height))
    scale = min(scale, LARGEST_GRID / (width * len(cells[0])), LARGEST_GRID / (height * len(cells)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _place(page: Image, pen: ImageDraw, picture: Image | None, box: tuple[int, int, int, int], cell: tuple[int, int]) -> None:
    """Draw one picture into the middle of `box` (left, top, width, height), scaled to fit `cell`."""
    from PIL import Image as Images

    left, top, width, height = box
    if picture is None:
        pen.rectangle((left, top, left + width - 1, top + height - 1), fill=(240, 240, 240))
        return
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    # A picture that is only smaller than its neighbours stays as it is; enlarging is for cells too small to see.
    scale = min(scale, max(1.0, SMALLEST_CELL / max(picture.size)))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    method = Images.Resampling.LANCZOS if scale < 1 else Images.Resampling.BICUBIC
    fitted = picture if size == picture.size else picture.resize(size, method)
    page.paste(fitted.convert("RGB"), (left + (width - size[0]) // 2, top + (height - size[1]) // 2))


def _row_label_width(labels: Sequence[str], cell_width: int, size: int) -> int:
    """As wide as the longest label, up to the width of a cell, where it is wrapped."""
    longest = max((load_font(text, size).getlength(line) for text in labels for line in text.split("\n")), default=0)
    return round(min(longest + 1, max(160, min(cell_width, 16 * size))))


def _fit(text: str, width: int, size: int, max_lines: int) -> Label:
    """`text` in lines of at most `width` pixels, made smaller until `max_lines` are enough, if possible."""
    while True:
        font = load_font(text, size)
        lines = [part for line in text.split("\n") for part in _wrap(line.strip(), font, width)]
        if len(lines) <= max_lines or size <= SMALLEST_TEXT:
            ascent, descent = font.getmetrics()
            return Label(tuple(lines), font, ascent + descent + 2)
        size -= 1


def _wrap(text: str, font: FreeTypeFont, width: int) -> list[str]:
    """Break at spaces, after , / _ - and between East Asian letters; inside a word only if it is wider than a line."""
    lines, line = [], ""
    for piece in _pieces(text):
        if font.getlength((line + piece).rstrip()) <= width:
            line += piece
            continue
        if line:
            lines.append(line.rstrip())
        line = ""
        for letter in piece:
            if line and font.getlength((line + letter).rstrip()) > width:
                lines.append(line)
                line = ""
            line += letter
    return [*lines, line.rstrip()]


def _pieces(text: str) -> list[str]:
    """The parts between which a line may be broken; joined they are the text."""
    pieces = [""]
    for letter in text:
        after = pieces[-1][-1:]
        breakable = after in tuple(" ,/\\_-") or ord(letter) >= 0x2E80 or ord(after or " ") >= 0x2E80
        if breakable and letter != " " and letter not in CLOSING and after not in tuple(OPENING):
            pieces.append("")
        pieces[-1] += letter
    return pieces
