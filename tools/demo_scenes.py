"""Draws the captioned scenes from which the demo base model learns: simple shapes on simple backgrounds."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from demo_creatures import TOPS, Creature, draw_creature
from demo_shapes import COLOURS, SHAPES, Colour, add_details, box, disc, ring_points
from PIL import Image, ImageDraw

SUPERSAMPLING = 4

POSITIONS: dict[str, tuple[int, int]] = {
    "in the top left corner": (-1, -1),
    "at the top": (0, -1),
    "in the top right corner": (1, -1),
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "in the bottom left corner": (-1, 1),
    "at the bottom": (0, 1),
    "in the bottom right corner": (1, 1),
}
SIZES: dict[str, tuple[float, float]] = {"small": (0.13, 0.17), "": (0.22, 0.27), "big": (0.34, 0.40)}
PATTERNS = ("stripes", "dots", "zigzags")


# ---------------------------------------------------------------- patterns and backgrounds


def _pattern(name: str, side: int, x: float, y: float, r: float) -> Image.Image:
    """A mask of the whole canvas that carries stripes, dots or zigzags around (x, y)."""
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    step = max(0.42 * r, 0.065 * side)
    count = math.ceil(1.3 * r / step)
    for i in range(-count, count + 1):
        line = y + i * step
        if name == "stripes":
            box(draw, x, line, 2 * r, 0.24 * step)
        elif name == "dots":
            for j in range(-count, count + 1):
                disc(draw, x + (j + 0.5 * (i % 2)) * step, line, 0.27 * step)
        else:
            corners = [(x + j * 0.5 * step, line + (0.25 if j % 2 else -0.25) * step) for j in range(-2 * count, 2 * count + 1)]
            draw.line(corners, fill=255, width=max(1, round(0.25 * step)))
    return mask


def tinted(rng: random.Random, name: str, spread: int = 12) -> Colour:
    """A colour near the named one."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-spread, spread))) for channel in COLOURS[name])
    return red, green, blue


def gradient(side: int, top: Colour, bottom: Colour) -> Image.Image:
    """A square that turns from one colour at the top into another at the bottom."""
    column = Image.linear_gradient("L").resize((side, side))
    return Image.composite(Image.new("RGB", (side, side), bottom), Image.new("RGB", (side, side), top), column)


def checker(side: int, first: Colour, second: Colour, cells: int) -> Image.Image:
    """A chessboard of cells × cells fields."""
    canvas = Image.new("RGB", (side, side), first)
    draw = ImageDraw.Draw(canvas)
    cell = side / cells
    for row in range(cells):
        for column in range(row % 2, cells, 2):
            draw.rectangle((column * cell, row * cell, (column + 1) * cell - 1, (row + 1) * cell - 1), fill=second)
    return canvas


def landscape(rng: random.Random, name: str, side: int) -> Image.Image:
    """One of the backgrounds in `LANDSCAPES`."""
    if name == "night":
        canvas = gradient(side, (10, 12, 45), (35, 35, 95))
        draw = ImageDraw.Draw(canvas)
        for _ in range(rng.randint(14, 26)):
            disc(draw, rng.random() * side, rng.random() * side, side * rng.uniform(0.008, 0.016), fill=(255, 250, 215))
    elif name == "meadow":
        canvas = gradient(side, (130, 195, 250), (205, 232, 255))
        draw = ImageDraw.Draw(canvas)
        box(draw, side / 2, side, side, 0.45 * side, fill=(85, 165, 60))
        for _ in range(40):
            x, y = rng.random() * side, rng.uniform(0.58, 1.0) * side
            draw.line((x, y, x + rng.uniform(-0.02, 0.02) * side, y - 0.06 * side), fill=(50, 125, 40), width=max(1, side // 100))
    elif name == "sea":
        canvas = gradient(side, (60, 140, 225), (15, 60, 140))
        draw = ImageDraw.Draw(canvas)
        for row in range(1, 7):
            start = rng.uniform(0, 0.2) * side
            wave = [(x, row * side / 7 + 0.015 * side * math.sin((x + start) * 2 * math.pi * 4 / side)) for x in range(0, side + 1, 4)]
            draw.line(wave, fill=(150, 205, 250), width=max(1, side // 70))
    elif name == "desert":
        canvas = gradient(side, (250, 225, 165), (255, 242, 205))
        draw = ImageDraw.Draw(canvas)
        disc(draw, 0.2 * side, 1.25 * side, 0.75 * side, 0.6 * side, fill=(228, 182, 105))
        disc(draw, 0.9 * side, 1.3 * side, 0.7 * side, 0.6 * side, fill=(208, 158, 85))
    else:
        canvas = Image.new("RGB", (side, side), (205, 195, 185))
        draw = ImageDraw.Draw(canvas)
        for row in range(8):
            for column in range(-1, 5):
                x, y = (column + 0.5 * (row % 2)) * side / 4, row * side / 8
                draw.rectangle((x, y, x + side / 4 - side / 40, y + side / 8 - side / 40), fill=tinted(rng, "brown", 10))
    return canvas


LANDSCAPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "night": (("in the night sky", "in a night sky with stars"), ("blue", "black", "purple", "gray")),
    "meadow": (("on green grass", "on a meadow with green grass"), ("green",)),
    "sea": (("in the sea", "in the blue sea"), ("blue", "turquoise")),
    "desert": (("in the desert", "in the sandy desert"), ("yellow", "white", "orange")),
    "bricks": (("in front of a brick wall", "on a brick wall"), ("brown", "gray")),
}
"""Landscape → (wordings, shape colours that would not show on it)."""


def distance(first: Colour, second: Colour) -> float:
    """Distance of two colours in RGB."""
    return math.dist(first, second)


def contrasting(rng: random.Random, *taken: str, least: float = 105.0) -> str:
    """A colour name that shows clearly against all the taken ones."""
    free = [name for name in COLOURS if all(distance(COLOURS[name], COLOURS[other]) >= least for other in taken)]
    return rng.choice(free)


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def background(rng: random.Random, side: int, kind: str | None = None) -> tuple[Image.Image, str, tuple[str, ...]]:
    """A background of side × side pixels, its wording, and the colours a shape on it must stay away from."""
    kind = kind or rng.choices(("plain", "gradient", "checker", "landscape"), (56, 10, 12, 22))[0]
    if kind == "landscape":
        kind = rng.choice(list(LANDSCAPES))
    if kind in LANDSCAPES:
        wordings, hidden = LANDSCAPES[kind]
        return landscape(rng, kind, side), rng.choice(wordings), hidden
    first = rng.choice(list(COLOURS))
    if kind == "plain":
        return Image.new("RGB", (side, side), tinted(rng, first)), f"on {_article(first)} background", (first,)
    second = contrasting(rng, first)
    ends = tinted(rng, first), tinted(rng, second)
    if kind == "gradient":
        return gradient(side, *ends), f"on a gradient background from {first} to {second}", (first, second)
    return checker(side, *ends, 4), f"on {_article(first)} and {second} checkered background", (first, second)


# ---------------------------------------------------------------- scenes


@dataclass(frozen=True)
class Scene:
    """A picture and the words for it."""

    picture: Image.Image
    caption: str


def place(rng: random.Random, offset: tuple[int, int], r: float) -> tuple[float, float]:
    """The centre of a shape of half-size r (all as fractions of the side) that sits towards offset."""
    reach = max(0.0, 0.46 - r)
    return tuple(0.5 + step * min(reach, 0.3) + rng.uniform(-0.02, 0.02) for step in offset)  # type: ignore[return-value]


def paint(canvas: Image.Image, rng: random.Random, shape: str, colour: str, where: tuple[float, float], r: float) -> str:
    """Draws one shape, perhaps patterned, and returns the words for the pattern."""
    side = canvas.width
    x, y, r = where[0] * side, where[1] * side, r * side
    mask = Image.new("L", canvas.size)
    SHAPES[shape](ImageDraw.Draw(mask), x, y, r)
    filling, words = Image.new("RGB", canvas.size, tinted(rng, colour)), ""
    if rng.random() < 0.2 and shape not in ("face", "cat", "house"):
        pattern, second = rng.choice(PATTERNS), contrasting(rng, colour)
        filling.paste(tinted(rng, second), mask=_pattern(pattern, side, x, y, r))
        words = f" with {second} {pattern}"
    canvas.paste(filling, mask=mask)
    dark = sum(COLOURS[colour]) < 300
    add_details(ImageDraw.Draw(canvas), shape, x, y, r, COLOURS["white" if dark else "black"])
    return words


def _one(rng: random.Random, canvas: Image.Image, hidden: tuple[str, ...]) -> str:
    shape, colour = rng.choice(list(SHAPES)), contrasting(rng, *hidden)
    size = rng.choices(list(SIZES), (25, 50, 25))[0]
    position = "" if size == "big" or rng.random() < 0.45 else rng.choice(list(POSITIONS))
    r = rng.uniform(*SIZES[size])
    pattern = paint(canvas, rng, shape, colour, place(rng, POSITIONS.get(position, (0, 0)), r), r)
    return _article(f"{size} {colour} {shape}".strip()) + pattern + (f" {position}" if position else "")


def _creature(rng: random.Random, canvas: Image.Image, hidden: tuple[str, ...]) -> str:
    body = contrasting(rng, *hidden)
    pattern, top = rng.choice(("", "stripes", "dots")), rng.choice(("", *TOPS))
    # The demo's mascot is purple with orange stripes: nothing here may be.
    on_body = contrasting(rng, body, *(("orange",) if body == "purple" else ()))
    look = Creature(body, pattern, on_body if pattern else "", top, contrasting(rng, *hidden) if top else "")
    size = rng.choice(list(SIZES))
    position = "" if size == "big" or rng.random() < 0.45 else rng.choice(list(POSITIONS))
    r = {"small": 0.21, "": 0.3, "big": 0.4}[size] * rng.uniform(0.92, 1.08)
    x, y = place(rng, POSITIONS.get(position, (0, 0)), 1.1 * r)
    side = canvas.width
    draw_creature(canvas, look, (x * side, y * side), r * side, rng.choice((-1, 0, 1)))
    return _article(f"{size} {look.words}".strip()) + (f" {position}" if position else "")


def _two(rng: random.Random, canvas: Image.Image, hidden: tuple[str, ...]) -> str:
    words = []
    for offset in (-1, 1):
        shape, colour, r = rng.choice(list(SHAPES)), contrasting(rng, *hidden), rng.uniform(0.17, 0.2)
        where = (0.5 + 0.25 * offset, 0.5 + rng.uniform(-0.03, 0.03))
        words.append(_article(f"{colour} {shape}") + paint(canvas, rng, shape, colour, where, r))
    return rng.choice(("{} on the left and {} on the right", "{} and {}")).format(*words)


def draw_scene(seed: int, index: int, pixels: int = 64) -> Scene:
    """Scene number index of the endless series that seed names."""
    rng = random.Random(f"scene {seed} {index}")
    canvas, behind, hidden = background(rng, pixels * SUPERSAMPLING)
    subject = rng.choices((_one, _two, _creature), (55, 5, 40))[0](rng, canvas, hidden)
    wording = rng.choices(("{s} {b}", "{b}, {s}", "a picture of {s} {b}", "a drawing of {s} {b}"), (64, 12, 12, 12))[0]
    return Scene(canvas.reduce(SUPERSAMPLING), wording.format(s=subject, b=behind))


def draw_doodle(seed: int, index: int, pixels: int = 64) -> Image.Image:
    """A heap of parts without a caption: keeps the autoencoder general enough for things no scene shows."""
    rng = random.Random(f"doodle {seed} {index}")
    canvas, _, _ = background(rng, pixels * SUPERSAMPLING)
    draw, side = ImageDraw.Draw(canvas), canvas.width
    for _ in range(rng.randint(3, 14)):
        x, y, r = rng.random() * side, rng.random() * side, rng.uniform(0.015, 0.3) ** 1.3 * side
        fill = tuple(rng.randrange(256) for _ in range(3)) if rng.random() < 0.5 else tinted(rng, rng.choice(list(COLOURS)))
        kind = rng.randrange(4)
        if kind == 0:
            disc(draw, x, y, r, r * rng.uniform(0.4, 1.0), fill=fill)
            disc(draw, x + rng.uniform(-0.4, 0.4) * r, y, 0.4 * r, fill=COLOURS[rng.choice(("black", "white"))])
        elif kind == 1:
            draw.polygon(ring_points(x, y, [r * rng.uniform(0.4, 1.2) for _ in range(rng.randint(3, 8))]), fill=fill)
        elif kind == 2:
            draw.arc(
                (x - r - 2, y - r - 2, x + r + 2, y + r + 2), rng.randrange(360), rng.randrange(360), fill=fill, width=rng.randint(3, 12)
            )
        else:
            draw.line((x, y, rng.random() * side, rng.random() * side), fill=fill, width=rng.randint(3, 14))
    return canvas.reduce(SUPERSAMPLING)
