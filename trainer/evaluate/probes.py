"""What a LoRA does, measured without drawing: on noised pictures, at fixed noise and timesteps, at each strength.

* the loss on held-out and on training pictures, per picture, so that two files are compared picture by picture;
* how much it changes the model's answer: ||answer with - answer without|| / ||answer without||;
* how much of an attribute survives: the change D that the attribute's words make to the answer, with the LoRA and without it,
  as <D with, D without> / ||D without||^2. 1 is as without the LoRA, 0 is no reaction: it paints its pictures whatever is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Stopped
from ..events import Listener, Status, StopCheck, ignore, never

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import TrainConfig
    from ..feed import Batch, Feed
    from ..plan import Plan
    from .canvas import Canvas

PARTS = 8  # noise levels per picture: the middle of each of so many equal parts of the range
MOST_PICTURES, MOST_LEARNED = 16, 8  # held-out and training pictures; every statement of measure rests on the former
ASKED = 4  # pictures whose answers are compared with the model's own
KEPT_ATTRIBUTES = 3  # those that the model without the LoRA reacts to most
# Words that a training set seldom has; those that it has are left out.
ATTRIBUTES = (
    "on a purple background",
    "on an orange background",
    "in a snowy forest",
    "in the desert",
    "under water",
    "at night",
    "wearing a red hat",
    "with green hair",
    "with sunglasses",
)
_SMALL_WORDS = {"a", "an", "the", "on", "in", "at", "of", "with", "and", "under", "wearing", "background", "to", "from", "is"}


@dataclass(frozen=True)
class Probe:
    """A file at a strength."""

    strength: float
    held_out: tuple[float, ...]  # the loss of each picture; empty where none is held out
    training: tuple[float, ...]
    change: float
    survival: float | None  # mean over the attributes; None without any

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Probe:
        """What `asdict` made, from JSON."""
        return cls(**{**values, **{name: tuple(values[name]) for name in ("held_out", "training")}})


@dataclass(frozen=True)
class Evidence:
    """The model alone, and every file at every strength in rising order."""

    base: Probe
    files: dict[Path, tuple[Probe, ...]]
    trigger: str
    attributes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        files = {str(file): [asdict(probe) for probe in probes] for file, probes in self.files.items()}
        return {"base": asdict(self.base), "files": files, "trigger": self.trigger, "attributes": list(self.attributes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evidence:
        """What `as_dict` made."""
        files = {Path(file): tuple(Probe.from_dict(probe) for probe in probes) for file, probes in values["files"].items()}
        return cls(Probe.from_dict(values["base"]), files, values["trigger"], tuple(values["attributes"]))


@dataclass(frozen=True)
class _Question:
    """Noised pictures and what is asked about them. `picture` counts from 0."""

    batch: Batch
    timesteps: Tensor
    picture: int


def gather_evidence(
    config: TrainConfig,
    files: Sequence[Path],
    strengths: Sequence[float],
    *,
    attributes: Sequence[str] = (),
    trigger: str = "",
    listen: Listener = ignore,
    stop: StopCheck = never,
) -> Evidence | None:
    """Measure every file at every strength on the pictures of the job; None after a stop.

    `attributes` in place of those that are known; `trigger` in place of the words that all captions share.
    """
    from ..data.cache import TensorCache
    from ..data.captions import plain
    from ..feed import fill_caches, reading_of
    from ..places import cache_dir_of
    from ..plan import make_plan
    from .canvas import open_canvas

    try:
        plan = make_plan(config, stop)
    except Stopped:
        return None
    learned = [record for record in plan.records if not record.regularization]
    captions = [plain(record.caption, record.caption_settings(config.dataset)) for record in learned]
    trigger = trigger or shared_words(captions)
    chosen = list(attributes) or absent(ATTRIBUTES, captions)
    with open_canvas(config.base, precision=config.train.precision, device=config.train.device, listen=listen, stop=stop) as canvas:
        canvas.model.tokenizer = canvas.model.reader(reading_of(config.dataset.captions))
        listen(Status("encoding pictures"))
        feed = fill_caches(plan, canvas.family, canvas.model, TensorCache(cache_dir_of(config)), False, listen, stop)
        if stop():
            return None
        prober = _Prober(canvas, feed, trigger, chosen)
        base = prober.start(keep=len(chosen) if attributes else KEPT_ATTRIBUTES)
        found: dict[Path, tuple[Probe, ...]] = {}
        for number, file in enumerate(files, 1):
            canvas.use(file)
            probes = []
            for strength in sorted(set(strengths) - {0}):
                if stop():
                    return None
                canvas.set_strengths([(strength, strength)])
                probes.append(prober.probe(strength))
            found[file] = tuple(probes)
            listen(Status(f"measured {file.stem}, {number} of {len(files)} files"))
    return Evidence(base, found, trigger, tuple(prober.attributes))


class _Prober:
    """Asks the same questions again and again."""

    def __init__(self, canvas: Canvas, feed: Feed, trigger: str, attributes: list[str]):
        self._canvas, self.attributes, self._trigger = canvas, attributes, trigger
        size = feed.plan.config.dataset.batch_size
        held_out = replace(feed, plan=_first_held_out(feed.plan, MOST_PICTURES))
        training = replace(feed, plan=_training_as_held_out(feed.plan))
        self._held_out, self._training = _questions(held_out, size, canvas.model), _questions(training, size, canvas.model)
        asked = held_out if self._held_out else training
        # Where the noise is strong enough for words to decide.
        self._open = _questions(replace(asked, plan=_first_held_out(asked.plan, ASKED)), size, canvas.model, range(PARTS // 2, PARTS))
        self._answers: list[Tensor] = []  # without a LoRA
        self._reactions: dict[str, list[Tensor]] = {}

    def start(self, keep: int) -> Probe:
        """The model alone; attributes that it hardly reacts to are left out."""
        held_out, training, self._answers = self._look()
        reactions = self._react(self.attributes)
        strength = {attribute: _square(parts, parts) for attribute, parts in reactions.items()}
        self.attributes = sorted(self.attributes, key=lambda attribute: -strength[attribute])[:keep]
        self._reactions = {attribute: reactions[attribute] for attribute in self.attributes}
        return Probe(0.0, held_out, training, 0.0, 1.0 if self.attributes else None)

    def probe(self, strength: float) -> Probe:
        held_out, training, answers = self._look()
        changes = [answer - before for answer, before in zip(answers, self._answers, strict=True)]
        change = (_square(changes, changes) / max(_square(self._answers, self._answers), 1e-12)) ** 0.5
        shares = []
        for attribute, parts in self._react(self.attributes).items():
            before = self._reactions[attribute]
            shares.append(_square(parts, before) / max(_square(before, before), 1e-12))
        return Probe(strength, held_out, training, change, sum(shares) / len(shares) if shares else None)

    def _look(self) -> tuple[tuple[float, ...], tuple[float, ...], list[Tensor]]:
        """The loss of each held-out and each training picture, means over their noise levels; the answers about the first few."""
        losses: list[tuple[float, ...]] = []
        answers: list[Tensor] = []
        for questions in (self._held_out, self._training):
            found: dict[int, list[float]] = {}
            for question in questions:
                own, answer = self._answer(question)
                found.setdefault(question.picture, []).extend(own)
                if question.picture < ASKED and questions is (self._held_out or self._training):
                    answers.append(answer)
            losses.append(tuple(sum(values) / len(values) for values in found.values()))
        return losses[0], losses[1], answers

    def _react(self, attributes: Sequence[str]) -> dict[str, list[Tensor]]:
        """What each attribute's words change."""
        if not attributes:
            return {}
        plain = [self._answer(question, self._trigger)[1] for question in self._open]

        def change(text: str) -> list[Tensor]:
            return [self._answer(question, text)[1] - before for question, before in zip(self._open, plain, strict=True)]

        return {attribute: change(f"{self._trigger} {attribute}") for attribute in attributes}

    def _answer(self, question: _Question, text: str | None = None) -> tuple[list[float], Tensor]:
        """Loss of each sample, and the model's answer, for the caption or another text."""
        import torch

        from ..config import NoiseSection
        from ..diffusion.losses import mean_error
        from ..families import join
        from ..objective import predict

        family, model, batch = self._canvas.family, self._canvas.model, question.batch
        texts = batch.captions if text is None else [text] * len(batch.captions)
        with torch.no_grad():
            encoded = {caption: family.encode_text(model, [caption]) for caption in dict.fromkeys(texts)}
            asked = replace(batch, conditioning=join([encoded[caption] for caption in texts]))
            answer, latents, noise = predict(family, model, asked, question.timesteps, NoiseSection())
            target = model.schedule.target(latents, noise, question.timesteps.to(model.device))
            masks = None if batch.masks is None else batch.masks.to(model.device)
            losses = mean_error((answer - target).square(), masks)
        return losses.tolist(), answer.float().cpu()


def shared_words(captions: Sequence[str]) -> str:
    """The words that all captions share, in the order of the first one: the trigger, as a rule."""
    words = [_words(caption) for caption in captions]
    if not words:
        return ""
    common = set(words[0]).intersection(*words[1:]) - _SMALL_WORDS
    return " ".join(dict.fromkeys(word for word in words[0] if word in common))


def absent(attributes: Sequence[str], captions: Sequence[str]) -> list[str]:
    """Attributes none of whose own words any caption has."""
    known = {word for caption in captions for word in _words(caption)}
    return [text for text in attributes if not (set(_words(text)) - _SMALL_WORDS) & known]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _square(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Inner product over all tensors."""
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(first, second, strict=True))


def _training_as_held_out(plan: Plan) -> Plan:
    """The plan with some of its training pictures, evenly over the set, in the place of the held-out ones."""
    learned = [number for number, record in enumerate(plan.records) if not record.regularization]
    step = max(1, -(-len(learned) // MOST_LEARNED))
    chosen = learned[::step]
    records, places = (tuple(values[number] for number in chosen) for values in (plan.records, plan.placements))
    return replace(plan, held_out=records, held_out_placements=places)


def _first_held_out(plan: Plan, most: int) -> Plan:
    return replace(plan, held_out=plan.held_out[:most], held_out_placements=plan.held_out_placements[:most])


def _questions(feed: Feed, size: int, model: Any, parts: range = range(PARTS)) -> list[_Question]:
    """Every held-out picture at the noise levels of `parts`, in batches of one picture."""
    import torch

    count = model.schedule.num_timesteps
    batches = list(feed.validation(PARTS))
    size = min(size, PARTS)
    result = []
    for picture in range(len(batches) // PARTS):
        for start in range(0, len(parts), size):
            asked = parts[start : start + size]
            timesteps = torch.tensor([int((part + 0.5) / PARTS * count) for part in asked])
            result.append(_Question(_together([batches[picture * PARTS + part] for part in asked]), timesteps, picture))
    return result


def _together(parts: Sequence[Batch]) -> Batch:
    """Batches of one as one batch."""
    import torch

    def cat(name: str) -> Tensor | None:
        tensors = [getattr(part, name) for part in parts]
        return None if tensors[0] is None else torch.cat(tensors)

    return replace(
        parts[0],
        files=tuple(file for part in parts for file in part.files),
        captions=[caption for part in parts for caption in part.captions],
        seeds=tuple(seed for part in parts for seed in part.seeds),
        weights=None,
        **{name: cat(name) for name in ("latents", "pixels", "masks", "sizes")},
    )
