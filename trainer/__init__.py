"""LoRA Furnace's trainer: `train(config, listen=…, stop=…)` runs one training in this process.

Importing it is cheap; torch and the model libraries load when a training starts.
"""

from __future__ import annotations

from .config import TrainConfig
from .errors import TrainerError
from .events import Listener, StopCheck, ignore, never
from .result import TrainResult

__version__ = "0.1.0"

__all__ = ["TrainConfig", "TrainResult", "TrainerError", "train"]


def train(config: TrainConfig, *, listen: Listener = ignore, stop: StopCheck = never, resume: bool = False) -> TrainResult:
    """Run one training in this process.

    `listen` receives every event of `trainer.events`; `stop` is polled often and ends the run at a step boundary with
    everything saved. `resume` continues the run of this name from its saved state, or starts it where there is none.
    Raises a `TrainerError` for what a user can mend; the model is released in any case.
    """
    from .run import run

    return run(config, listen, stop, resume)
