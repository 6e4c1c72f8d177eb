"""LoRA Furnace's trainer: `train(config, listen=…, stop=…)` runs one training in this process.

Importing it is cheap; torch and the model libraries load when a training starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import BaseSection, SampleSection, TrainConfig
from .errors import TrainerError
from .events import Listener, StopCheck, ignore, never
from .result import TrainResult

if TYPE_CHECKING:
    from .check_report import CheckReport
    from .evaluate.advise import Advised
    from .evaluate.xyz import DrawnGrid, GridPlan

__version__ = "0.1.0"

__all__ = [
    "TrainConfig",
    "TrainResult",
    "TrainerError",
    "advise",
    "check",
    "draw_class_pictures",
    "draw_grid",
    "load_config",
    "strength_test",
    "train",
]


def load_config(path: str | Path, overrides: Iterable[str] = (), presets: Iterable[str] = ()) -> TrainConfig:
    """A job from a YAML or JSON file, or from a LoRA that was trained here; see `trainer.reading.load_config`."""
    from .reading import load_config

    return load_config(path, overrides, presets)


def _require_config(config: object) -> None:
    if not isinstance(config, TrainConfig):
        raise TypeError(
            f"config should be a TrainConfig, not {config!r}: trainer.load_config reads a file, trainer.config.from_dict a dict"
        )


def train(config: TrainConfig, *, listen: Listener = ignore, stop: StopCheck = never, resume: bool = False) -> TrainResult:
    """Run one training in this process.

    `listen` receives every event of `trainer.events`; `stop` is polled often and ends the run at a step boundary with
    everything saved. `resume` continues the run of this name from its saved state, or starts it where there is none.
    Raises a `TrainerError` for what a user can mend; the model is released in any case.
    """
    from .run import run

    _require_config(config)
    return run(config, listen, stop, resume)


def check(config: TrainConfig, *, resume: bool = False) -> CheckReport:
    """Everything that can be known of a job without training it; the errors are those that `train` would raise."""
    from .check_report import check as run_check

    _require_config(config)
    return run_check(config, resume=resume)


def draw_grid(base: BaseSection, plan: GridPlan, **options: Any) -> DrawnGrid:
    """Draw an X/Y/Z grid with the trainer's own sampler; see `trainer.evaluate.strength.draw_plan`."""
    from .evaluate.strength import draw_plan

    return draw_plan(base, plan, **options)


def draw_class_pictures(
    base: BaseSection, sample: SampleSection, resolution: tuple[int, int], folder: Path, count: int, **options: Any
) -> DrawnGrid:
    """Draw regularisation pictures with the base model; see `trainer.class_pictures`."""
    from .class_pictures import draw_class_pictures

    return draw_class_pictures(base, sample, resolution, folder, count, **options)


def advise(config: TrainConfig, folder: Path, **options: Any) -> Advised | None:
    """Say which file of a job to use at which strength; see `trainer.evaluate.advise.advise`."""
    from .evaluate.advise import advise as run_advise

    _require_config(config)
    return run_advise(config, folder, **options)


def strength_test(
    base: BaseSection, files: Sequence[Path], strengths: Sequence[float], sample: SampleSection, resolution: tuple[int, int], **options: Any
) -> DrawnGrid:
    """Draw prompts with LoRA files at strengths; see `trainer.evaluate.strength`."""
    from .evaluate.strength import draw_plan, strength_plan

    return draw_plan(base, strength_plan(files, strengths, sample, resolution), **options)
