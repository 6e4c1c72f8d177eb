"""Creatures in the demo's pictures: the scenes have many, the mascot is one more."""

from __future__ import annotations

from dataclasses import dataclass

from demo_shapes import COLOURS, disc
from PIL import Image, ImageDraw

TOPS = ("antennae", "horns", "ears")


@dataclass(frozen=True)
class Creature:
    """An animal of no known kind; all but its eyes are colours' names. `top` is one of `TOPS` or nothing."""

    body: str
    pattern: str = ""
    pattern_colour: str = ""
    top: str = ""
    top_colour: str = ""

    @property
    def words(self) -> str:
        """How captions call it, without the article."""
        parts = [f"{self.pattern_colour} {self.pattern}"] * bool(self.pattern) + [f"{self.top_colour} {self.top}"] * bool(self.top)
        return f"{self.body} creature" + (" with " + " and ".join(parts) if parts else "")


def draw_creature(canvas: Image.Image, look: Creature, where: tuple[float, float], r: float, gaze: float = 0, eyes: int = 2) -> None:
    """Draws the creature about 2 r high around a place, all in pixels; gaze moves the pupils, -1 to 1."""
    draw, (x, y) = ImageDraw.Draw(canvas), where
    body, end = COLOURS[look.body], COLOURS[look.top_colour or look.body]
    for way in (-1, 1):
        disc(draw, x + way * 0.36 * r, y + 0.9 * r, 0.3 * r, 0.17 * r, fill=end)
        if look.top == "antennae":
            draw.line((x + way * 0.2 * r, y - 0.4 * r, x + way * 0.5 * r, y - 0.85 * r), fill=end, width=round(0.16 * r))
            disc(draw, x + way * 0.52 * r, y - 0.85 * r, 0.22 * r, fill=end)
        elif look.top == "horns":
            draw.polygon([(x + way * 0.15 * r, y - 0.4 * r), (x + way * 0.7 * r, y - 0.3 * r), (x + way * 0.6 * r, y - 1.05 * r)], fill=end)
        elif look.top == "ears":
            disc(draw, x + way * 0.55 * r, y - 0.55 * r, 0.36 * r, fill=end)
    mask = Image.new("L", canvas.size)
    disc(ImageDraw.Draw(mask), x, y + 0.14 * r, 0.84 * r, 0.8 * r)
    filling = Image.new("RGB", canvas.size, body)
    if look.pattern == "stripes":
        for row in (0.36, 0.74):
            band = (x - r, y + (row - 0.1) * r, x + r, y + (row + 0.1) * r)
            ImageDraw.Draw(filling).rectangle(band, fill=COLOURS[look.pattern_colour])
    elif look.pattern == "dots":
        for column, row in ((-0.45, 0.4), (0, 0.45), (0.45, 0.4), (-0.22, 0.74), (0.22, 0.74)):
            disc(ImageDraw.Draw(filling), x + column * r, y + row * r, 0.12 * r, fill=COLOURS[look.pattern_colour])
    canvas.paste(filling, mask=mask)
    size = 0.26 if eyes == 2 else 0.38
    for way in (-1, 1) if eyes == 2 else (0,):
        centre = x + way * 0.32 * r, y - 0.14 * r
        disc(draw, *centre, size * r, fill=COLOURS["white"])
        disc(draw, centre[0] + 0.4 * size * gaze * r, centre[1], 0.5 * size * r, fill=COLOURS["black"])
