"""Draws the demo's dataset: a mascot called zibu that the base model has never seen, for training it in with a LoRA."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from demo_creatures import Creature, draw_creature
from demo_scenes import LANDSCAPES, POSITIONS, SUPERSAMPLING, checker, gradient, landscape, place
from demo_shapes import COLOURS
from PIL import Image

PIXELS = 256
REPEATS = 10
TRIGGER = "zibu"
MASCOT = Creature("purple", "stripes", "orange", "antennae", "yellow")
"""With one big eye, which no creature of the scenes has, and in colours that none of them has."""
HALF_SIZES = {"small": 0.21, "": 0.3, "big": 0.4}


@dataclass(frozen=True)
class Pose:
    """How one picture of the mascot looks; `behind` is a landscape, one colour, or two for a gradient or a checker."""

    size: str
    position: str
    behind: tuple[str, ...]
    checkered: bool = False

    @property
    def caption(self) -> str:
        """The words of the training picture, in the wording of the base model's captions."""
        subject = f"a {self.size} {TRIGGER}" if self.size else TRIGGER
        return " ".join(part for part in (subject, self.position, self._background()) if part)

    def _background(self) -> str:
        if self.behind[0] in LANDSCAPES:
            return LANDSCAPES[self.behind[0]][0][0]
        if len(self.behind) == 1:
            return f"on a {self.behind[0]} background"
        first, second = self.behind
        return f"on a {first} and {second} checkered background" if self.checkered else f"on a gradient background from {first} to {second}"


TRAINING = (
    Pose("", "", ("blue",)),
    Pose("small", "in the top right corner", ("green",)),
    Pose("big", "", ("white",)),
    Pose("", "", ("meadow",)),
    Pose("", "on the left", ("turquoise",)),
    Pose("small", "in the bottom left corner", ("pink",)),
    Pose("", "at the bottom", ("sea",)),
    Pose("", "", ("green", "white"), checkered=True),
    Pose("big", "", ("gray",)),
    Pose("small", "", ("pink", "turquoise")),
    Pose("", "on the right", ("desert",)),
    Pose("", "", ("night",)),
)
HELD_OUT = (
    Pose("", "", ("red",)),
    Pose("small", "in the top left corner", ("white",)),
    Pose("big", "", ("bricks",)),
    Pose("", "on the right", ("green", "yellow")),
)


def _background(rng: random.Random, pose: Pose, side: int) -> Image.Image:
    if pose.behind[0] in LANDSCAPES:
        return landscape(rng, pose.behind[0], side)
    first, last = COLOURS[pose.behind[0]], COLOURS[pose.behind[-1]]
    return checker(side, first, last, 4) if pose.checkered else gradient(side, first, last)


def draw_pose(pose: Pose, seed: str, pixels: int = PIXELS) -> Image.Image:
    """The picture of one pose; seed settles the small things: gaze, stars, grass."""
    rng = random.Random(seed)
    side = pixels * SUPERSAMPLING
    canvas = _background(rng, pose, side)
    r = HALF_SIZES[pose.size]
    x, y = (fraction * side for fraction in place(rng, POSITIONS.get(pose.position, (0, 0)), 1.15 * r))
    draw_creature(canvas, MASCOT, (x, y), r * side, rng.choice((-1, 0, 1)), eyes=1)
    return canvas.reduce(SUPERSAMPLING)


def write_pictures(poses: tuple[Pose, ...], folder: Path, start: int) -> None:
    """Writes zibu_01.png, zibu_01.txt and so on, counting from start."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pose in enumerate(poses, start):
        stem = folder / f"{TRIGGER}_{number:02d}"
        draw_pose(pose, f"{TRIGGER} {number}").save(stem.with_suffix(".png"), optimize=True)
        stem.with_suffix(".txt").write_text(pose.caption + "\n", encoding="utf-8")


def write_dataset(dataset: Path, heldout: Path) -> None:
    """The training pictures in a folder named repeats_concept, and the held-out ones."""
    write_pictures(TRAINING, dataset / f"{REPEATS}_{TRIGGER}", 1)
    write_pictures(HELD_OUT, heldout, 1 + len(TRAINING))
