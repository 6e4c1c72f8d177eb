"""The node that says which file to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..trainer import advise
from ..trainer.config import BaseSection, DatasetSection, SampleSection, TrainConfig, ValidateSection
from ..trainer.errors import ConfigError
from ..trainer.evaluate.advise import STRENGTHS
from ..trainer.evaluate.axes import parse_numbers
from . import host, pictures
from .bridge import NodeDisplay, run_beside
from .fingerprint import fingerprint, named
from .outputs import AnyName
from .sampling import PRECISION
from .widgets import Widgets

SAMPLE = Widgets(SampleSection, only=("seed", "steps", "cfg", "sampler", "scheduler"), names={"sampler": "sampler_name"})


class Advice:
    """Which file at which strength."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Says in words which LoRA file to use at which strength, what speaks against the others and what to change next time, "
        "with the numbers: loss on held-out pictures at every strength, and what survives of words that no training picture has."
    )
    SEARCH_ALIASES = ["which lora", "best epoch", "overfitting", "sanity prompts", "evaluate lora", "lora advice"]
    RETURN_TYPES = ("STRING", AnyName("COMBO,STRING"), "FLOAT", "IMAGE")
    RETURN_NAMES = ("advice", "lora_name", "strength", "pictures")
    OUTPUT_IS_LIST = (False, False, False, True)
    OUTPUT_TOOLTIPS = (
        "The advice with its numbers.",
        "The recommended file, for the lora_name of Load LoRA; the last one where none can be recommended.",
        "Its best strength; 1 where none can be recommended.",
        "The figures over strength, and the grid of the over-fitting check.",
    )
    OUTPUT_NODE = True
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        lines = {"multiline": True, "default": ""}
        words = (
            "What to add to the trigger, one a line: things that the training pictures do not have. Empty: backgrounds, places, clothes."
        )
        required = {
            "base": ("LF_BASE", {"tooltip": "The model that the LoRA was trained on."}),
            "dataset": ("LF_DATASET", {"tooltip": "The pictures that it was trained on."}),
            "loras": ("STRING", lines | {"tooltip": "Names of LoRA files in the order of training; connect lora_names of Train LoRA."}),
            "strengths": ("STRING", {"default": STRENGTHS, "tooltip": "Numbers and ranges such as 0.25-1.5/0.25 (from-to/step)."}),
            "trigger": ("STRING", {"default": "", "tooltip": "Empty: the words that all captions share."}),
            "attributes": ("STRING", lines | {"tooltip": words}),
        }
        held_out = {
            "held_out": (
                "LF_DATASET",
                {"tooltip": "Pictures that were never trained on. Without them nothing can be said about over-fitting."},
            )
        }
        return {"required": required, "optional": held_out | SAMPLE.inputs() | PRECISION.inputs(), "hidden": {"node_id": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, loras: str | None = None, **_: Any) -> str:
        return fingerprint(named(_files, loras))

    def execute(
        self, base: BaseSection, dataset: DatasetSection, loras: str, strengths: str, trigger: str, attributes: str,
        held_out: DatasetSection | None = None, node_id: str = "", **values: Any,
    ) -> dict[str, Any]:  # fmt: skip
        files = _files(loras)
        if not files:
            raise ConfigError("loras: write at least one LoRA name, one a line, or connect lora_names of Train LoRA")
        folder = host.own_folder("advice") / files[-1].stem
        config = _config(base, dataset, held_out, values)
        words = [line.strip() for line in attributes.splitlines() if line.strip()]
        chosen = {"loras": files, "strengths": parse_numbers(strengths), "trigger": trigger.strip(), "attributes": words}
        found = run_beside(lambda listen, stop: advise(config, folder, listen=listen, stop=stop, **chosen), NodeDisplay(node_id))
        assert found is not None, "after Cancel the interrupt was raised"
        text = "\n".join(found.advice.lines())
        host.show_text(text, node_id)
        shown = [path for path in found.files if path.suffix == ".png"]
        file = found.advice.file or files[-1]
        name = next(line for line, path in zip(filter(None, map(str.strip, loras.splitlines())), files, strict=True) if path == file)
        images = [pictures.open_picture(path) for path in shown]
        return {
            "ui": {"images": [host.output_reference(path) for path in shown]},
            "result": (text, name, found.advice.strength or 1.0, images),
        }


def _files(loras: str) -> list[Path]:
    return [host.model_path("loras", line.strip()) for line in loras.splitlines() if line.strip()]


def _config(base: BaseSection, dataset: DatasetSection, held_out: DatasetSection | None, values: dict[str, Any]) -> TrainConfig:
    """The job as far as measuring asks for it; its caches are shared by all advice."""
    sections: dict[str, Any] = {"base": base, "dataset": dataset, "sample": SAMPLE.build(values), "train": PRECISION.values(values)}
    if held_out:
        sections["validate"] = ValidateSection(folder=held_out.folders[0].path)
    return TrainConfig.model_validate(sections | {"save": {"dir": str(host.own_folder("advice")), "name": "advice"}})
