"""Nodes for the queue: jobs that `python -m trainer queue` trains one after another, also while ComfyUI is closed."""

from __future__ import annotations

from typing import Any

from ..trainer.config import to_yaml
from ..trainer.program import trainer_command, typed
from ..trainer.queue import QueueFolder
from ..trainer.queue.status import status_of
from . import host
from .runs import Run, find_run
from .train import TrainLora, job_config


class AddToQueue:
    """Puts a job into the queue instead of training it now."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Puts the job of a Train LoRA node into the queue, output/lora_furnace/queue, instead of training it now. `python -m trainer "
        "queue` trains the queue in a terminal; its text says the whole command. Train LoRA with the same inputs then takes the result."
    )
    SEARCH_ALIASES = ["queue", "batch training", "train later", "overnight", "job list"]
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("text",)
    OUTPUT_TOOLTIPS = ("What was added, and the command that trains the queue.",)
    FUNCTION = "execute"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return TrainLora.INPUT_TYPES()

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")  # unequal to itself: the job may have been taken out, have failed, or its LoRA be gone

    def execute(self, node_id: str = "", **inputs: Any) -> tuple[str]:
        config = job_config(**inputs)
        text = _add(find_run(config, host.lora_folder(), host.output_folder()))
        host.show_text(text, node_id)
        return (text,)


class QueueStatus:
    """What the queue is at."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "The jobs of the queue: running with step and loss, waiting in order, failed with the reason, done. The order is that of the "
        "names of the files in output/lora_furnace/queue: rename them to change it, delete one to take it out."
    )
    SEARCH_ALIASES = ["queue", "jobs", "batch training", "progress"]
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("text",)
    OUTPUT_TOOLTIPS = ("One job a line, for Preview Any.",)
    FUNCTION = "execute"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "hidden": {"node_id": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")  # unequal to itself: look each time

    def execute(self, node_id: str = "") -> tuple[str]:
        text = "\n".join(row.line() for row in status_of(_queue())) or "the queue is empty"
        host.show_text(text, node_id)
        return (text,)


def _queue() -> QueueFolder:
    return QueueFolder(host.own_folder("queue"))


def _add(run: Run) -> str:
    """Put a job there unless it is done or waits already; says what was done."""
    queue, name = _queue(), run.config.save.name
    if run.result:
        return f"{name}.safetensors: already trained, nothing to do"
    file, known = f"{name}.yaml", {job.name: job.state for job in queue.jobs() if job.state in ("running", "waiting")}
    if file in known:
        return f"{file} is {known[file]} in the queue already"
    queue.add(file, to_yaml(run.config))
    run.remember()  # so that its name is taken, and Train LoRA finds the result
    line = typed(trainer_command("queue", str(queue.folder)))
    return f"{file} waits behind {len(known)} jobs. In a terminal: {line}"
