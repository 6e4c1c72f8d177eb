"""The demo: a LoRA of a concept that the base has never seen, its strength grid, and what it learned in one sentence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import TrainConfig, TrainResult, strength_test, train
from ..checkpoint import STATE_FILE
from ..config import from_dict
from ..errors import ConfigError, TrainerError
from ..evaluate.axes import parse_numbers
from ..evaluate.shelf import FolderShelf
from ..evaluate.xyz import write_sheets
from ..events import Listener, StopCheck
from ..places import run_dir_of
from . import base_folder, dataset_folder, heldout_folder

PROMPT = "a big zibu on a blue background"
STRENGTHS = "0-1.2/0.2"
MOST_COLUMNS = 6


@dataclass(frozen=True)
class DemoResult:
    """`heldout` is the loss on held-out pictures at strength 0 and 1."""

    training: TrainResult
    grid: Path | None
    heldout: tuple[float, float] | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        metrics = {"heldout_loss_strength_0": self.heldout[0], "heldout_loss_strength_1": self.heldout[1]} if self.heldout else {}
        status = "done" if self.grid else "stopped"
        return self.training.as_dict() | {
            "status": status,
            "grid": str(self.grid) if self.grid else None,
            "metrics": metrics,
            "seconds": round(self.seconds, 1),
        }

    def lines(self) -> list[str]:
        """What `demo` prints at the end."""
        lines = [f"LoRA:  {self.training.artefact}", f"log:   {self.training.run_dir}", f"grid:  {self.grid or 'not drawn'}"]
        lines += [self.sentence()] if self.heldout else []
        return [*lines, f"Which file at which strength: python -m trainer advise {self.training.run_dir}"]

    def sentence(self) -> str:
        """What the held-out pictures say."""
        assert self.heldout is not None
        before, after = self.heldout
        change = (before - after) / before
        figures = f"loss {before:.4f} at strength 0, {after:.4f} at strength 1"
        if change > 0.02:
            return f"On pictures of the concept that it never saw, the LoRA predicts {change:.0%} better than the base model ({figures})."
        return f"On pictures of the concept that it never saw, the LoRA is not better than the base model ({figures})."


def demo_config(out: Path, steps: int | None = None) -> TrainConfig:
    """The configuration of the demo; its files go to `out`."""
    return from_dict(
        {
            "base": {"checkpoint": str(base_folder())},
            "dataset": {"folders": [{"path": str(dataset_folder())}], "resolution": 64, "batch_size": 8},
            "method": {"rank": 32, "alpha": 32},
            "optimizer": {"kind": "adamw", "lr": 1.5e-3, "text_encoder_lr": 5e-4},
            "schedule": {"kind": "cosine", "warmup": 0.05},
            "train": {"epochs": 15, "steps": steps, "precision": "fp32", "seed": 1},
            "save": {"dir": str(out), "name": "zibu", "every_epochs": 3},
            "sample": {"prompts": [PROMPT], "cfg": 3, "steps": 20, "every_epochs": 5},
            "validate": {"folder": str(heldout_folder()), "every_epochs": 5},
        }
    )


def run_demo(out: Path, steps: int | None, listen: Listener, stop: StopCheck) -> DemoResult:
    """Train, then draw the strength grid; after a stop, go on with either. A finished demo in the same folder is an error."""
    if not (base_folder() / "model_index.json").is_file():
        raise TrainerError(f"the demo base is missing from this installation ({base_folder()}); install the project again")
    if (out / "grid.png").exists():
        raise ConfigError(f"--out: {out / 'grid.png'} exists already; choose another folder. Nothing was changed")
    start = time.time()
    config = demo_config(out, steps)
    result = train(config, listen=listen, stop=stop, resume=(run_dir_of(config) / STATE_FILE).is_file())
    losses = [loss for _, loss in result.validation]
    heldout = (losses[0], losses[-1]) if len(losses) > 1 else None
    if result.status == "stopped":
        return DemoResult(result, None, heldout, time.time() - start)
    test = strength_test(
        config.base,
        _columns(result.files),
        parse_numbers(STRENGTHS),
        config.sample,
        config.dataset.resolution,
        precision=config.train.precision,
        shelf=FolderShelf(out / "cells", model=base_folder()),
        listen=listen,
        stop=stop,
    )
    grid = write_sheets(test, out)[0] if test.finished else None
    return DemoResult(result, grid, heldout, time.time() - start)


def _columns(files: Sequence[Path]) -> list[Path]:
    """At most `MOST_COLUMNS` files, evenly over the run, the last included."""
    count = min(MOST_COLUMNS, len(files))
    return [files[round((number + 1) * len(files) / count) - 1] for number in range(count)]
