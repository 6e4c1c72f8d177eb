"""The node that looks before anything is trained."""

from __future__ import annotations

from typing import Any

from ..trainer import check
from ..trainer.config import AdapterSection, BaseSection, DatasetSection
from . import host
from .bridge import NodeDisplay, run_beside
from .links import config_of, with_cache
from .settings import Training


class CheckTraining:
    """What a training would do."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Reads pictures, captions and settings as Train LoRA would, trains nothing, and reports: buckets, captions that are missing or "
        "too long, steps, size of the file, memory by stage, and the settings that would make it fit where it does not."
    )
    SEARCH_ALIASES = ["check dataset", "preflight", "memory estimate", "vram", "how many steps", "buckets"]
    RETURN_TYPES = ("STRING", "INT", "INT")
    RETURN_NAMES = ("report", "steps", "estimated_mib")
    OUTPUT_TOOLTIPS = (
        "The report, for Preview Any.",
        "How many steps the training has.",
        "Memory that it needs at its worst moment, estimated, in MiB.",
    )
    FUNCTION = "execute"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "base": ("LF_BASE", {"tooltip": "What the LoRA is to be trained on."}),
                "dataset": ("LF_DATASET", {"tooltip": "The pictures and captions."}),
            },
            "optional": {
                "lora": ("LF_METHOD", {"tooltip": "LoRA Settings; their defaults if nothing is connected."}),
                "training": ("LF_TRAINING", {"tooltip": "Training Settings; their defaults if nothing is connected."}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")  # files and free memory change without a widget changing

    def execute(
        self,
        base: BaseSection,
        dataset: DatasetSection,
        lora: AdapterSection | None = None,
        training: Training | None = None,
        node_id: str = "",
    ) -> dict[str, Any]:
        config = config_of(base, with_cache(dataset), lora, training)
        places = {"dir": str(host.lora_folder()), "run_dir": str(host.output_folder())}
        config = config.model_copy(update={"save": config.save.model_copy(update=places)})
        # Train LoRA takes a free name, or goes on: files of any name are in nobody's way.
        report = run_beside(lambda _listen, _stop: check(config, resume=True), NodeDisplay(node_id), free=False)
        text = "\n".join(report.lines())
        host.show_text(text, node_id)
        return {"ui": {"text": [text]}, "result": (text, report.plan.total_steps, report.estimate.total_mib)}
