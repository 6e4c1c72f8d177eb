"""From a run's files to one well-founded choice: measure, judge, and draw what it rests on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError
from ..events import Listener, StopCheck, ignore, never
from ..files import require_writable, write_text
from .advice import STIFF, Advice, give_advice
from .axes import Axis, lora_axis
from .charts import add_legend, new_figure, to_picture
from .grid import draw_grid
from .lora_files import run_files
from .probes import Evidence, gather_evidence
from .shelf import FolderShelf
from .strength import draw_plan
from .xyz import DrawnGrid, GridPlan, write_picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..config import TrainConfig

STRENGTHS = "0.25-1.5/0.25"


@dataclass(frozen=True)
class Advised:
    """The advice, what was measured, and the files that show it."""

    advice: Advice
    evidence: Evidence
    files: tuple[Path, ...]


def advise(
    config: TrainConfig,
    folder: Path,
    *,
    loras: Sequence[Path] = (),
    strengths: Sequence[float] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
    attributes: Sequence[str] = (),
    trigger: str = "",
    pictures: bool = True,
    listen: Listener = ignore,
    stop: StopCheck = never,
) -> Advised | None:
    """Advice on the files of a job, or on `loras`; None after a stop.

    Writes advice.txt, advice.csv and advice.png to `folder` and, with `pictures`, the grid of the over-fitting check, sanity.png:
    each attribute with every file at strength 1 and without.
    """
    from ..places import run_dir_of

    files = list(loras) or run_files(run_dir_of(config))
    problems = [] if files else [f"RUN: {run_dir_of(config)} has saved no LoRA that is still there; name files"]
    problems += [] if any(strength > 0 for strength in strengths) else ["strengths: give at least one number above 0"]
    if problems:
        raise ConfigError(problems)
    require_writable(folder, "out", make=False)
    evidence = gather_evidence(config, files, strengths, attributes=attributes, trigger=trigger, listen=listen, stop=stop)
    if evidence is None:
        return None
    advice = give_advice(evidence)
    written = [folder / name for name in ("advice.txt", "advice.csv", "advice.png")]
    write_text(written[0], "\n".join(advice.lines()) + "\n")
    write_text(written[1], _csv(evidence))
    write_picture(draw_evidence(evidence), written[2])
    if pictures and evidence.attributes:
        grid = _sanity_grid(config, evidence, folder, listen, stop)
        if not grid.finished:
            return None
        written.append(folder / "sanity.png")
        write_picture(sanity_sheet(grid, evidence), written[-1])
    return Advised(advice, evidence, tuple(written))


def draw_evidence(evidence: Evidence) -> Image:
    """Held-out loss, training loss and what survives of attributes, over strength, one line per file."""
    base = evidence.base
    kinds = {
        "held_out": "loss on held-out pictures",
        "training": "loss on training pictures",
        "survival": "how much of an attribute survives",
    }
    shown = [name for name in kinds if getattr(base, name)]
    figure = new_figure(430 * max(1, len(shown)), 360)
    for panel, name in zip(np.ravel(figure.subplots(1, len(shown), squeeze=False)), shown, strict=True):
        for probes in evidence.files.values():
            values = [_relative(getattr(probe, name), getattr(base, name)) for probe in (base, *probes)]
            panel.plot([0.0, *(probe.strength for probe in probes)], values, "o-", markersize=3.5)
        panel.axhline(STIFF if name == "survival" else 1.0, color="0.6", linewidth=0.8, linestyle="--")
        panel.set_title(kinds[name] + ("" if name == "survival" else ", share of the model's own"), fontsize=8)
        panel.set_xlabel("strength", fontsize=8)
        panel.set_ylim(0, min(2.0, max(1.15, panel.get_ylim()[1])))
        panel.grid(color="0.92")
        panel.tick_params(labelsize=7)
        add_legend(panel, [file.stem for file in evidence.files])
    return to_picture(figure)


def sanity_sheet(grid: DrawnGrid, evidence: Evidence) -> Image:
    """Attributes down; across, without the LoRA and with each file."""
    plan = grid.plan
    _, rows, columns = plan.shape
    cells = [[grid.without((0, row, 0)), *(grid.picture((0, row, column)) for column in range(columns))] for row in range(rows)]
    survived = []
    for file, probes in evidence.files.items():
        full = min(probes, key=lambda probe: abs(probe.strength - 1))
        survived.append(f"{file.stem}\n{max(0.0, full.survival):.0%} survives" if full.survival is not None else file.stem)
    title = f"{evidence.trigger} …: what survives of words that the training pictures do not have"
    return draw_grid(cells, ["without", *survived], list(evidence.attributes), title, plan.footnote(0))


def _sanity_grid(config: TrainConfig, evidence: Evidence, folder: Path, listen: Listener, stop: StopCheck) -> DrawnGrid:
    from ..sample import requests

    first, *_ = evidence.attributes
    sample = config.sample.model_validate({**config.sample.model_dump(), "prompts": [f"{evidence.trigger} {first}".strip()]})
    words = Axis("prompt", evidence.attributes, tuple((first, attribute) for attribute in evidence.attributes))
    plan = GridPlan(tuple(requests(sample, config.dataset.resolution)), x=lora_axis(list(evidence.files)), y=words)
    shelf = FolderShelf(folder / "cells", model=Path(config.base.checkpoint))
    options = {"precision": config.train.precision, "device": config.train.device}
    return draw_plan(config.base, plan, shelf=shelf, with_plain=True, listen=listen, stop=stop, **options)


def _relative(value: float | Sequence[float], base: float | Sequence[float]) -> float:
    return float(np.mean(value)) / float(np.mean(base))


def _csv(evidence: Evidence) -> str:
    """One line per file and strength; losses are means over pictures."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "strength", "held_out_loss", "training_loss", "change", "survival"])
    rows = [("", evidence.base), *((file.stem, probe) for file, probes in evidence.files.items() for probe in probes)]
    for name, probe in rows:
        losses = [f"{np.mean(values):.6g}" if values else "" for values in (probe.held_out, probe.training)]
        survival = "" if probe.survival is None else f"{probe.survival:.4g}"
        writer.writerow([name, f"{probe.strength:g}", *losses, f"{probe.change:.4g}", survival])
    return stream.getvalue()
