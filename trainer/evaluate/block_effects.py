"""Which blocks of a LoRA change the picture: one block or set of blocks at a time gets another weight, everything else stays as it is.

Each picture is compared with that of the unchanged LoRA at the same seed. Whoever draws supplies `Draw`, so that the trainer's
sampler and a host's answer the same question.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..block_weights import WeightedLora
from ..columns import columns
from ..errors import ConfigError
from ..events import CellDrawn, Listener, StopCheck, Warned, ignore, never
from ..families.block_vectors import as_text
from .metrics import changed_share

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from ..config import BaseSection, SampleSection

Draw = Callable[[WeightedLora, Sequence[int]], "Iterable[Image]"]  # a picture for each seed; fewer after a stop

THRESHOLD = 20  # grey levels of 255
SMALL = 0.1  # of the largest change: blocks below it are left out of the suggested vector


@dataclass(frozen=True)
class Trial:
    """Blocks that get another weight together."""

    name: str  # as it was asked for, such as IN04-IN05
    blocks: tuple[str, ...]
    ratio: float


@dataclass(frozen=True)
class Question:
    """What is tried on which LoRA. `lora` is the reference, with all its block weights."""

    lora: WeightedLora
    trials: tuple[Trial, ...]
    seeds: tuple[int, ...]
    threshold: float = THRESHOLD


@dataclass(frozen=True)
class Effect:
    """What one trial changed; one share (0 to 1) and one picture for each seed."""

    trial: Trial
    changed: tuple[float, ...]
    pictures: tuple[Image, ...]
    norm_share: float  # of the file's squared norm that lies in these blocks

    @property
    def mean(self) -> float:
        return fmean(self.changed)


@dataclass(frozen=True)
class BlockEffects:
    """The answer; after a stop without the trials that were not drawn for every seed."""

    question: Question
    references: tuple[Image, ...]
    effects: tuple[Effect, ...]

    @property
    def finished(self) -> bool:
        return len(self.effects) == len(self.question.trials)

    def suggestion(self) -> dict[str, float]:
        """The weights as they were, but 0 for each tried block whose largest mean change is below `SMALL` of the largest of all.

        Such blocks can be left out nearly unseen. Empty where no trial changed a pixel, because then nothing is known.
        """
        largest: dict[str, float] = {}
        for effect in self.effects:
            for block in effect.trial.blocks:
                largest[block] = max(effect.mean, largest.get(block, 0.0))
        most = max(largest.values(), default=0.0)
        if not most:
            return {}
        return {name: 0.0 if largest.get(name, most) < SMALL * most else ratio for name, ratio in self.question.lora.blocks.items()}

    def vector(self) -> str:
        """The suggestion as a text for block-weight loading, or the weights as they were."""
        return as_text(self.suggestion() or self.question.lora.blocks, self.question.lora.table)

    def text(self) -> str:
        """The table for a person."""
        question, rows = self.question, [["blocks", "weight", "changed", "lowest", "highest", "norm share"]]
        for effect in self.effects:
            shares = [effect.mean, min(effect.changed), max(effect.changed), effect.norm_share]
            rows.append([effect.trial.name, f"{effect.trial.ratio:g}", *(f"{share:.2%}" for share in shares)])
        head = (
            f"{question.lora.table.title}: pixels that change by more than {question.threshold:g} of 255 when these blocks get this "
            f"weight, over {len(question.seeds)} seeds"
        )
        suggested = f"suggested vector (0 where less than {SMALL:.0%} of the largest change): {self.vector()}"
        if not self.suggestion():
            suggested = "no block changed a pixel; try another prompt, more steps or a lower threshold"
        return "\n".join([head, *columns(rows), suggested, *(f"note: {note}" for note in question.lora.notes())])

    def csv(self) -> str:
        """One line for each trial and seed."""
        file = StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["blocks", "weight", "seed", "changed", "norm_share"])
        for effect in self.effects:
            for seed, changed in zip(self.question.seeds, effect.changed, strict=True):
                writer.writerow([effect.trial.name, f"{effect.trial.ratio:g}", seed, f"{changed:.6f}", f"{effect.norm_share:.6f}"])
        return file.getvalue()

    def as_dict(self) -> dict[str, Any]:
        rows = [
            {"blocks": list(effect.trial.blocks), "ratio": effect.trial.ratio, "changed": list(effect.changed), "mean": effect.mean}
            for effect in self.effects
        ]
        return {"effects": rows, "seeds": list(self.question.seeds), "threshold": self.question.threshold, "suggested": self.vector()}


def ask(
    lora: WeightedLora, sets: str = "", ratios: Sequence[float] = (0.0,), seeds: Sequence[int] = (1,), threshold: float = THRESHOLD
) -> Question:
    """What to try. `sets` is a text such as `IN04, IN05-IN08, M00 OUT03`: a comma or a new line begins the next set; empty is each
    block of the file alone. ConfigError lists what does not fit the file.
    """
    problems = [] if ratios else ["ratios: give at least one number"]
    problems += [] if seeds else ["seeds: give at least one number"]
    problems += [] if 0 <= threshold < 255 else [f"threshold: {threshold:g} is not from 0 to below 255"]
    found = {lora.table.block_of(module.name) for module in lora.modules}
    present = [name for name in lora.table.names if name in found]
    chosen: dict[str, tuple[str, ...]] = {}
    for text in filter(None, (part.strip() for part in re.split(r"[,;\n]", sets))) if sets.strip() else present:
        try:
            blocks = [name for entry in re.sub(r"\s*-\s*", "-", text).split() for name in lora.table.expand(entry)]
        except KeyError:
            problems.append(f"sets: {text!r} has no block of {lora.table.title}; blocks: {', '.join(lora.table.names)}")
            continue
        chosen[text.upper()] = tuple(name for name in dict.fromkeys(blocks) if name in present)
        if not chosen[text.upper()]:
            problems.append(f"sets: {text!r} has no layer in this file; its blocks: {', '.join(present)}")
    if problems:
        raise ConfigError(problems)
    trials = tuple(Trial(name, blocks, ratio) for name, blocks in chosen.items() for ratio in dict.fromkeys(ratios))
    for trial in trials:
        lora.with_blocks(trial.blocks, trial.ratio)  # an impossible one is said before anything is drawn
    return Question(lora, trials, tuple(dict.fromkeys(seeds)), threshold)


def answer(question: Question, draw: Draw, listen: Listener) -> BlockEffects:
    """Draw the reference and every trial. A trial that changes no weight has the reference's pictures."""
    lora, seeds = question.lora, question.seeds
    norms = {line.block: line.share for line in lora.lines()}
    total, done = (len(question.trials) + 1) * len(seeds), 0

    def pictures(weighted: WeightedLora, known: Iterable[Image] = ()) -> tuple[Image, ...]:
        nonlocal done
        drawn = []
        for picture in known or draw(weighted, seeds):
            drawn.append(picture)
            done += 1
            listen(CellDrawn(done, total, picture))
        return tuple(drawn)

    references = pictures(lora)
    effects: list[Effect] = []
    for trial in question.trials if len(references) == len(seeds) else ():
        weighted = lora.with_blocks(trial.blocks, trial.ratio)
        drawn = pictures(weighted, references if weighted.ratios == lora.ratios else ())
        if len(drawn) < len(seeds):
            break
        pairs = zip(references, drawn, strict=True)
        changed = tuple(changed_share(before, after, question.threshold) for before, after in pairs)
        effects.append(Effect(trial, changed, drawn, sum(norms[block] for block in trial.blocks)))
    return BlockEffects(question, references, tuple(effects))


def draw_effects(
    base: BaseSection,
    file: Path,
    question: Question,
    sample: SampleSection,
    resolution: tuple[int, int],
    *,
    listen: Listener = ignore,
    stop: StopCheck = never,
    **options: str,
) -> BlockEffects:
    """`answer` by the trainer's own sampler, for the first prompt of `sample`; `file` is the LoRA's name in messages.

    `options` are precision and device of `open_canvas`. ConfigError for unknown samplers, ModelFileError where the LoRA is for
    another model.
    """
    from ..families.loading import check_loras
    from ..sample import check_sampling, requests
    from .canvas import open_canvas

    problems = check_sampling(sample) + check_loras(base)
    problems += [] if sample.prompts else ["sample.prompts: a block analysis needs a prompt"]
    if problems:
        raise ConfigError(problems)
    request = requests(sample, resolution)[0]
    with open_canvas(base, listen=listen, stop=stop, **options) as canvas:

        def pictures(lora: WeightedLora, seeds: Sequence[int]) -> Iterator[Image]:
            unused = canvas.use(file, lora.tensors())
            if unused and lora is question.lora:
                listen(Warned(f"{file.name}: {len(unused)} tensors fit no layer of this model, for example {unused[0]}"))
            for seed in seeds:
                picture = canvas.draw(replace(request, seed=seed))
                if picture is None:
                    return
                yield picture

        return answer(question, pictures, listen)
