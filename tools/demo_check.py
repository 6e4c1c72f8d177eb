"""Looks at what the demo base model paints: a sheet of samples, and how often the colours are the ones asked for."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from demo_scenes import contrasting, distance
from demo_shapes import COLOURS
from PIL import Image

STEPS, GUIDANCE = 20, 5.0
SHEET = (
    "a red circle on a blue background",
    "a green triangle on a white background",
    "a big yellow star on a purple background",
    "a small pink heart in the top left corner on a green background",
    "a white cat on a red background",
    "a yellow face in the night sky",
    "a red house on green grass",
    "an orange fish in the sea",
    "a green tree in the desert",
    "a purple mushroom in front of a brick wall",
    "a blue ring on an orange background",
    "a turquoise flower on a black background",
    "a brown square on the left on a yellow background",
    "a white moon in the top right corner in the night sky",
    "a big red heart with white stripes on a gray background",
    "a blue circle with yellow dots on a pink background",
    "an orange diamond on a black and white checkered background",
    "a black triangle on a gradient background from yellow to red",
    "a red square and a green circle on a white background",
    "a small white star at the top on a brown background",
    "a red creature with white antennae on a blue background",
    "a big green creature with black dots and yellow ears on a pink background",
    "a blue creature with orange stripes in the desert",
    "a small orange creature with purple horns on the left on a gray background",
)


@torch.no_grad()
def paint(folder: Path, prompts: list[str], seed: int = 0, batch: int = 24) -> list[Image.Image]:
    """Pictures of a saved model, each from its own seed, through diffusers' own pipeline."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        pictures += pipeline(part, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators).images
    return pictures


def sample_sheet(folder: Path, path: Path, columns: int = 6, zoom: int = 2) -> None:
    """Writes a sheet of samples, one for each prompt in `SHEET`, in reading order."""
    pictures = paint(folder, list(SHEET))
    cell = 64 * zoom + 4
    sheet = Image.new("RGB", (columns * cell, -(-len(pictures) // columns) * cell), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture.resize((64 * zoom, 64 * zoom), Image.Resampling.NEAREST), (i % columns * cell + 2, i // columns * cell + 2))
    sheet.quantize(128).save(path, optimize=True)


def _median(pixels: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    red, green, blue = (sorted(channel)[len(pixels) // 2] for channel in zip(*pixels, strict=True))
    return red, green, blue


def colours_of(picture: Image.Image) -> tuple[str, str]:
    """The named colours nearest to the thing in the middle and to the background of a 64 × 64 picture.

    The background is the median of a border of 4 pixels; the thing is the median of those pixels in the middle
    that differ from it (of all pixels there, where none does).
    """
    side = picture.width
    pixels = {(x, y): picture.getpixel((x, y)) for x in range(side) for y in range(side)}
    behind = _median([pixel for (x, y), pixel in pixels.items() if min(x, y) < 4 or max(x, y) >= side - 4])
    middle = [pixel for (x, y), pixel in pixels.items() if max(abs(x - side / 2), abs(y - side / 2)) <= side * 0.2]
    thing = _median([pixel for pixel in middle if distance(pixel, behind) > 60] or middle)
    nearest = [min(COLOURS, key=lambda name: distance(COLOURS[name], colour)) for colour in (thing, behind)]
    return nearest[0], nearest[1]


def adherence(folder: Path, count: int = 48) -> dict[str, object]:
    """The shares of pictures of "a COLOUR SHAPE on a COLOUR background" whose colours are the ones asked for."""
    rng = random.Random("adherence")
    asked, prompts = [], []
    for _ in range(count):
        behind = rng.choice(list(COLOURS))
        colour, shape = contrasting(rng, behind), rng.choice(("circle", "square", "triangle", "diamond", "heart", "star"))
        asked.append((colour, behind))
        prompts.append(f"a {colour} {shape} on a {behind} background".replace("a orange", "an orange"))
    seen = [colours_of(picture) for picture in paint(folder, prompts, seed=1000)]
    both = sum(a == b for a, b in zip(asked, seen, strict=True))
    thing = sum(a[0] == b[0] for a, b in zip(asked, seen, strict=True))
    ground = sum(a[1] == b[1] for a, b in zip(asked, seen, strict=True))
    shares = {"shape_colour": thing, "background_colour": ground, "both": both}
    return {"prompts": count, "steps": STEPS, "guidance": GUIDANCE} | {key: round(value / count, 3) for key, value in shares.items()}
