"""The palette of the demo's pictures, and the simple shapes in them."""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import ImageDraw

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 35, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (250, 220, 50),
    "orange": (250, 140, 25),
    "purple": (130, 50, 180),
    "pink": (250, 150, 200),
    "brown": (125, 75, 35),
    "black": (20, 20, 25),
    "white": (248, 248, 248),
    "gray": (140, 140, 145),
    "turquoise": (50, 205, 205),
}
Painter = Callable[[ImageDraw.ImageDraw, float, float, float], None]
"""Paints one shape of half-size r around (x, y), all in pixels of the large canvas."""


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float | None = None, fill: object = 255) -> None:
    """An ellipse of half-axes rx and ry (rx too when left out) around (x, y)."""
    ry = rx if ry is None else ry
    draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)


def ring_points(x: float, y: float, radii: list[float]) -> list[tuple[float, float]]:
    """Points on rays at equal angles, the first straight up; radii repeat one after the other."""
    step = 360.0 / len(radii)
    angles = [math.radians(step * i - 90) for i in range(len(radii))]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def box(draw: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: object = 255) -> None:
    draw.rectangle((x - rx, y - ry, x + rx, y + ry), fill=fill)


def _star(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    draw.polygon(ring_points(x, y, [1.1 * r, 0.46 * r] * 5), fill=255)


def _heart(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    turns = [2 * math.pi * i / 60 for i in range(60)]
    draw.polygon(
        [
            (
                x + r * math.sin(t) ** 3,
                y - r * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15,
            )
            for t in turns
        ],
        fill=255,
    )


def _ring(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    disc(draw, x, y, r)
    disc(draw, x, y, 0.5 * r, fill=0)


def _cross(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    box(draw, x, y, r, 0.34 * r)
    box(draw, x, y, 0.34 * r, r)


def _moon(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    disc(draw, x, y, r)
    disc(draw, x + 0.5 * r, y - 0.15 * r, 0.8 * r, fill=0)


def _flower(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    for px, py in ring_points(x, y, [0.6 * r] * 6):
        disc(draw, px, py, 0.4 * r)


def _house(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    box(draw, x, y + 0.4 * r, 0.75 * r, 0.6 * r)
    draw.polygon([(x - r, y - 0.15 * r), (x, y - r), (x + r, y - 0.15 * r)], fill=255)


def _tree(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    for top, half in ((-1.0, 0.55), (-0.55, 0.75), (-0.1, 0.95)):
        draw.polygon([(x, y + top * r), (x - half * r, y + (top + 0.75) * r), (x + half * r, y + (top + 0.75) * r)], fill=255)


def _fish(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    disc(draw, x - 0.2 * r, y, 0.8 * r, 0.55 * r)
    draw.polygon([(x + 0.35 * r, y), (x + r, y - 0.55 * r), (x + r, y + 0.55 * r)], fill=255)


def _cat(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    disc(draw, x, y + 0.15 * r, 0.95 * r, 0.8 * r)
    for side in (-1, 1):
        draw.polygon([(x + side * 0.9 * r, y - r), (x + side * 0.95 * r, y + 0.1 * r), (x + side * 0.2 * r, y - 0.5 * r)], fill=255)


def _mushroom(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    draw.pieslice((x - r, y - 0.9 * r, x + r, y + 0.9 * r), 180, 360, fill=255)


SHAPES: dict[str, Painter] = {
    "circle": lambda draw, x, y, r: disc(draw, x, y, r),
    "square": lambda draw, x, y, r: box(draw, x, y, 0.88 * r, 0.88 * r),
    "triangle": lambda draw, x, y, r: draw.polygon(ring_points(x, y + 0.2 * r, [1.15 * r] * 3), fill=255),
    "diamond": lambda draw, x, y, r: draw.polygon(ring_points(x, y, [r] * 4), fill=255),
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "cross": _cross,
    "moon": _moon,
    "flower": _flower,
    "house": _house,
    "tree": _tree,
    "fish": _fish,
    "cat": _cat,
    "mushroom": _mushroom,
    "face": lambda draw, x, y, r: disc(draw, x, y, r),
}


def add_details(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, ink: Colour) -> None:
    """The parts of a many-part shape that do not take its colour; ink is black or white, whichever shows."""
    if shape == "flower":
        disc(draw, x, y, 0.32 * r, fill=COLOURS["yellow"] if ink == COLOURS["black"] else COLOURS["white"])
    elif shape == "house":
        box(draw, x - 0.35 * r, y + 0.35 * r, 0.2 * r, 0.2 * r, fill=ink)
        box(draw, x + 0.32 * r, y + 0.6 * r, 0.2 * r, 0.4 * r, fill=COLOURS["brown"])
    elif shape == "tree":
        box(draw, x, y + 0.82 * r, 0.18 * r, 0.2 * r, fill=COLOURS["brown"])
    elif shape == "fish":
        disc(draw, x - 0.6 * r, y - 0.12 * r, 0.12 * r, fill=ink)
    elif shape == "cat":
        for side in (-1, 1):
            disc(draw, x + side * 0.38 * r, y + 0.02 * r, 0.14 * r, 0.2 * r, fill=ink)
            draw.line((x + side * 0.3 * r, y + 0.5 * r, x + side * 1.1 * r, y + 0.4 * r), fill=ink, width=max(1, round(0.06 * r)))
        draw.polygon([(x - 0.14 * r, y + 0.32 * r), (x + 0.14 * r, y + 0.32 * r), (x, y + 0.52 * r)], fill=ink)
    elif shape == "mushroom":
        box(draw, x, y + 0.4 * r, 0.3 * r, 0.45 * r, fill=(240, 225, 195))
    elif shape == "face":
        for side in (-1, 1):
            disc(draw, x + side * 0.35 * r, y - 0.25 * r, 0.13 * r, fill=ink)
        draw.arc((x - 0.55 * r, y - 0.45 * r, x + 0.55 * r, y + 0.6 * r), 25, 155, fill=ink, width=max(2, round(0.13 * r)))
