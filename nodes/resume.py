"""The node that goes on with an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..trainer import TrainConfig
from ..trainer.config import TrainSection
from . import host
from .fingerprint import fingerprint, named
from .registered import load_registered
from .runs import CONFIG_FILE, RECORD, STATE_FILE, describe_run, reopen_run, saved_runs
from .train import TrainLora, perform
from .widgets import Widgets

NOTHING = "(no run to go on with yet: train something, then press R)"


class ResumeTraining:
    """Goes on with a run that was cancelled, or that broke off; or trains a finished one longer."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Goes on with a run exactly where it stands, from what it left in output/lora_furnace: after Cancel, a crash or a power cut, "
        "also when its workflow is gone. The result is bit for bit that of a run that was never interrupted. It can also train longer."
    )
    SEARCH_ALIASES = ["resume", "continue training", "train longer", "more epochs", "interrupted"]
    RETURN_TYPES = TrainLora.RETURN_TYPES
    RETURN_NAMES = TrainLora.RETURN_NAMES
    OUTPUT_IS_LIST = TrainLora.OUTPUT_IS_LIST
    OUTPUT_TOOLTIPS = TrainLora.OUTPUT_TOOLTIPS
    FUNCTION = "execute"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        runs = saved_runs(host.output_folder()) or [NOTHING]
        longer = "Train until so many {} are done, instead of as the run was set; the learning rate follows the new length. 0 = not set."
        numbers = {
            name: (kind, options | {"default": 0, "min": 0, "tooltip": longer.format(name)})
            for name, (kind, options) in Widgets(TrainSection, only=("epochs", "steps")).inputs().items()
        }
        help = "A run in output/lora_furnace that has left a state to go on from, the newest first."
        run = (runs, {"tooltip": "\n".join([help, *(describe_run(host.output_folder() / name) for name in runs if name != NOTHING)])})
        return {"required": {"run": run}, "optional": numbers, "hidden": {"node_id": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, run: str | None = None, **_: Any) -> str:
        return fingerprint(named(_traces, run))

    def execute(self, run: str, epochs: int = 0, steps: int = 0, node_id: str = "") -> dict[str, Any]:
        runs = host.output_folder()
        if run not in saved_runs(runs):
            raise ValueError(f"run: {run!r} is not a folder below {runs} with a state to go on from; train something, then press R")
        config = _longer(load_registered(runs / run / CONFIG_FILE), epochs, steps)
        return perform(reopen_run(config, run, host.lora_folder(), runs), run, node_id)


def _traces(run: str) -> list[Path]:
    """The files that say where a run stands."""
    return [host.output_folder() / run / name for name in (STATE_FILE, CONFIG_FILE, RECORD)]


def _longer(config: TrainConfig, epochs: int, steps: int) -> TrainConfig:
    """Another length; the steps win over the epochs, as in the configuration."""
    length = {"steps": steps} if steps else {"epochs": epochs, "steps": None} if epochs else {}
    return config.model_copy(update={"train": config.train.model_copy(update=length)})
