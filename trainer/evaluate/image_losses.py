"""Training pictures that behave oddly: each one's loss at fixed noise and timesteps, with and without LoRA and caption.

A picture's loss by itself says how hard it is to draw, so pictures are compared in what changes: by the LoRA, which learns
what pictures have in common, and by the caption, which helps where it fits (Li et al. 2023, arXiv 2303.16203, classify
pictures by the text that lowers this loss most). What is odd follows from medians (Iglewicz and Hoaglin 1993, "How to
detect and handle outliers"), which the odd ones themselves do not move.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..columns import columns
from ..config import TrainConfig
from ..errors import Stopped
from ..events import Listener, Measured, Status, StopCheck, Warned, ignore, never
from ..files import replacing, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..adapters.base import Tensors

PARTS = 8  # timesteps per picture: the middle of each of so many equal parts of the noise range
ODD = 3.5  # Iglewicz and Hoaglin's limit
LEAST_SPREAD = 0.01  # in logarithms: pictures that differ by less than a per cent do not make one odd
LEAST_PICTURES = 5
ROWS, CELLS, THUMBNAIL = 20, 12, 256  # of the printed table, of the sheet, pixels of a picture there

Logs = Mapping[str, np.ndarray]  # condition -> mean logarithm of each picture's losses


@dataclass(frozen=True)
class Measure:
    """One way of being odd: a number per picture, and the words for what is above (or below) the others."""

    of: Callable[[Logs], np.ndarray]
    high: str
    low: str = ""  # empty: low is no oddness
    needs: str = "base"


MEASURES = {
    "caption": Measure(
        lambda logs: logs["base"] - logs["base, no caption"], "its caption helps the base model less than the others: wrong caption?"
    ),
    "lora caption": Measure(
        lambda logs: logs["lora"] - logs["lora, no caption"],
        "with the LoRA, its caption helps less than the others: wrong caption or another subject?",
        needs="lora",
    ),
    "learned": Measure(
        lambda logs: logs["lora"] - logs["base"], "the LoRA improves it less than the others: another subject or style?", needs="lora"
    ),
    "loss": Measure(
        lambda logs: logs["base"], "harder to draw than the others: noise, text, another style?", "easier than the others: empty?"
    ),
}


@dataclass(frozen=True)
class ImageLoss:
    """One picture: mean losses by condition, and by measure how many spreads it lies from the median picture."""

    path: Path
    caption: str
    losses: dict[str, float]
    scores: dict[str, float]

    @property
    def oddness(self) -> float:
        return max((self._weight(name) for name in self.scores), default=0.0)

    def reasons(self) -> list[str]:
        """In words, the strongest first; empty for a picture that is like the others."""
        found = sorted((name for name in self.scores if self._weight(name) > ODD), key=self._weight, reverse=True)
        return [MEASURES[name].high if self.scores[name] > 0 else MEASURES[name].low for name in found]

    def _weight(self, name: str) -> float:
        return abs(self.scores[name]) if MEASURES[name].low else self.scores[name]


@dataclass(frozen=True)
class ImageReport:
    """All pictures, the oddest first. `lora` is None where the base model alone was measured."""

    images: tuple[ImageLoss, ...]
    lora: Path | None

    @property
    def flagged(self) -> list[ImageLoss]:
        return [image for image in self.images if image.reasons()]

    def lines(self) -> list[str]:
        """A table of the oddest, and what is odd about them."""
        shown = self.images[: max(ROWS, len(self.flagged))]
        names = list(dict.fromkeys(name for image in shown for name in (*image.losses, *image.scores)))
        rows = [["picture", *names]]
        for image in shown:
            cells = {name: f"{loss:.4f}" for name, loss in image.losses.items()} | {name: f"{z:+.1f}" for name, z in image.scores.items()}
            rows.append([image.path.name, *(cells.get(name, "") for name in names)])
        return [*columns(rows), *self._words()]

    def _words(self) -> list[str]:
        if len(self.images) < LEAST_PICTURES:
            return [f"{len(self.images)} pictures are too few to call one odd; {LEAST_PICTURES} are needed"]
        if not self.flagged:
            return [f"none of {len(self.images)} pictures stands out (limit: {ODD:g} spreads from the median)"]
        return [f"{image.path.name} ({image.caption!r}): {'; '.join(image.reasons())}" for image in self.flagged]

    def as_dict(self) -> dict[str, Any]:
        return {
            "lora": str(self.lora) if self.lora else None,
            "flagged": [str(image.path) for image in self.flagged],
            "images": [
                {
                    "path": str(image.path),
                    "caption": image.caption,
                    "losses": image.losses,
                    "scores": image.scores,
                    "reasons": image.reasons(),
                }
                for image in self.images
            ],
        }

    def csv(self) -> str:
        """Every picture with its figures and reasons."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        first = self.images[0]
        writer.writerow(["picture", "caption", *(f"loss: {name}" for name in first.losses), *(f"score: {n}" for n in first.scores), "odd"])
        for image in self.images:
            writer.writerow([image.path, image.caption, *image.losses.values(), *image.scores.values(), "; ".join(image.reasons())])
        return text.getvalue()

    def sheet(self) -> Image:
        """The flagged pictures, or where there are none the three that are nearest to it, with what is odd about them."""
        from PIL import Image as Images

        from .grid import draw_grid

        chosen = self.flagged[:CELLS] or list(self.images[:3])
        cells = []
        for image in chosen:
            with Images.open(image.path) as picture:
                picture.thumbnail((THUMBNAIL, THUMBNAIL))
                cells.append([picture.convert("RGB")])
        labels = ["\n".join([image.path.name, image.caption, *image.reasons()]) for image in chosen]
        title = f"{len(self.flagged)} of {len(self.images)} pictures stand out" if self.flagged else "No picture stands out"
        return draw_grid(cells, (), labels, title)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """images.csv and images.png."""
        table, sheet = folder / "images.csv", folder / "images.png"
        write_text(table, self.csv())
        with replacing(sheet) as temporary:
            self.sheet().save(temporary, format="PNG")
        return table, sheet


def measure_images(config: TrainConfig, lora: Path | None, *, listen: Listener = ignore, stop: StopCheck = never) -> ImageReport | None:
    """Measure every picture that `config` learns from with the base model and, where given, with a LoRA; None after a stop."""
    try:
        return _measure(config, lora, listen, stop)
    except Stopped:
        return None


def _measure(config: TrainConfig, lora: Path | None, listen: Listener, stop: StopCheck) -> ImageReport:
    from ..adapters.files import read_tensors
    from ..data.cache import TensorCache
    from ..families import FAMILIES, find_family, load_base
    from ..feed import fill_caches, reading_of
    from ..places import cache_dir_of
    from ..plan import make_plan
    from ..precision import DTYPES, release_memory, resolve_device
    from ..preflight import check_settings

    check_settings(config)
    tensors = read_tensors(lora) if lora else {}  # a file that cannot be read is said before anything is loaded
    device = resolve_device(config.train.device)
    family = find_family(config.base.checkpoint, config.base.family, FAMILIES)
    plan = make_plan(config, stop)
    listen(Status(f"loading {family.spec.title} on {device}"))
    model = load_base(family, config.base, device, DTYPES[config.train.precision], config.memory)
    model.tokenizer = model.reader(reading_of(config.dataset.captions))
    try:
        feed = fill_caches(plan, family, model, TensorCache(cache_dir_of(config)), False, listen, stop)
        numbers = [number for number, record in enumerate(plan.records) if not record.regularization]
        found: dict[str, np.ndarray] = {}
        for name, prepare in _conditions(family, model, lora, tensors, listen):
            prepare()
            rows = []
            for done, number in enumerate(numbers):
                if stop():
                    raise Stopped
                rows.append(_losses(family, model, feed, number, captioned="no caption" not in name))
                listen(Measured(len(found) * len(numbers) + done + 1, (4 if lora else 2) * len(numbers)))
            found[name] = np.asarray(rows)
    finally:
        del model
        release_memory(device)
    records = [plan.records[number] for number in numbers]
    return ImageReport(_judged([(record.path, record.caption) for record in records], found), lora)


def _conditions(family: Any, model: Any, lora: Path | None, tensors: Tensors, listen: Listener) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is measured in turn, and how the model is brought into that state."""
    from ..adapters.files import fit_adapters, set_strength

    def nothing() -> None:
        pass

    adapters = None
    if lora:
        adapters, unused = fit_adapters(lora, tensors, [(target.key, target.module) for target in family.adapter_targets(model)])
        if unused:
            listen(Warned(f"{lora.name}: {len(unused)} tensors fit no layer of this model, for example {unused[0]}"))
    yield "base", nothing
    yield "base, no caption", nothing
    if adapters is None:
        return
    adapters.attach()
    try:
        yield "lora", lambda: set_strength(adapters, 1.0, model.dtype)
        yield "lora, no caption", nothing
    finally:
        adapters.detach()


def _losses(family: Any, model: Any, feed: Any, number: int, captioned: bool) -> list[float]:
    """The loss at the middle of each part of the timesteps, on noise that is the same for all pictures of one size."""
    import torch

    from ..objective import batch_loss
    from ..seeds import derive

    total, at_once = model.schedule.num_timesteps, feed.plan.config.dataset.batch_size
    timesteps = [int((part + 0.5) / PARTS * total) for part in range(PARTS)]
    seeds = [derive(feed.plan.config.train.seed, "image losses", part) for part in range(PARTS)]
    losses: list[float] = []
    for start in range(0, PARTS, at_once):
        batch = feed.repeated(number, captioned, tuple(seeds[start : start + at_once]))
        with torch.no_grad():
            losses += batch_loss(family, model, batch, timesteps=torch.tensor(timesteps[start : start + at_once])).tolist()
    return losses


def _judged(pictures: Sequence[tuple[Path, str]], found: Mapping[str, np.ndarray]) -> tuple[ImageLoss, ...]:
    """`found` has (pictures, parts) losses by condition. In logarithms, every part of the timesteps counts the same."""
    logs = {name: np.log(np.maximum(losses, 1e-12)).mean(1) for name, losses in found.items()}
    enough = len(pictures) >= LEAST_PICTURES
    scores = {name: robust_scores(measure.of(logs)) for name, measure in MEASURES.items() if measure.needs in logs} if enough else {}
    images = [
        ImageLoss(
            path,
            caption,
            {name: float(losses[place].mean()) for name, losses in found.items()},
            {name: float(values[place]) for name, values in scores.items()},
        )
        for place, (path, caption) in enumerate(pictures)
    ]
    return tuple(sorted(images, key=lambda image: -image.oddness))


def robust_scores(values: np.ndarray) -> np.ndarray:
    """Distance of each value from the median, in spreads: the median distance over 0.6745, which of normal numbers is their deviation."""
    away = values - np.median(values)
    return away / max(float(np.median(np.abs(away))) / 0.6745, LEAST_SPREAD)
