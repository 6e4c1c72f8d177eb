"""Files to measure with, made of scikit-image's photographs."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
WORDS = ("red", "old", "small", "bright", "cat", "cup", "rocket", "wheel", "on a table", "in the evening", "seen from above", "close-up")


def write_photographs(folder: Path, count: int, megapixels: tuple[float, float]) -> Path:
    """Pieces of photographs enlarged to between two sizes, every third a PNG, the others JPEG, each with a caption; made once."""
    import skimage

    folder.mkdir(parents=True, exist_ok=True)
    photographs = [Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB") for name in NAMES]
    for number in range(count):
        chance = random.Random(number)
        path = folder / f"{number:05d}{'.png' if number % 3 == 0 else '.jpg'}"
        if path.with_suffix(".txt").exists():
            continue
        photograph = chance.choice(photographs)
        width, height = (round(side * chance.uniform(0.6, 0.95)) for side in photograph.size)
        left, top = chance.randint(0, photograph.width - width), chance.randint(0, photograph.height - height)
        scale = (chance.uniform(*megapixels) * 1e6 / (width * height)) ** 0.5
        piece = photograph.crop((left, top, left + width, top + height))
        piece.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC).save(path, quality=92)
        path.with_suffix(".txt").write_text(", ".join(chance.sample(WORDS, 5)), encoding="utf-8")
    return folder
