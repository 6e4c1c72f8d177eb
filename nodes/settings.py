"""Nodes for the settings of a training that do not depend on the model or the pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..trainer.config import (
    AdapterSection,
    OptimizerSection,
    SampleSection,
    SaveSection,
    ScheduleSection,
    TrainSection,
    ValidateSection,
)
from .widgets import Widgets, optional_inputs


@dataclass(frozen=True)
class Training:
    """What travels along an LF_TRAINING link: sections of a TrainConfig, under its names."""

    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    train: TrainSection = field(default_factory=TrainSection)
    save: SaveSection = field(default_factory=SaveSection)
    sample: SampleSection = field(default_factory=SampleSection)
    validation: ValidateSection = field(default_factory=ValidateSection)


class LoraSettings:
    """The adapter that is trained."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = "Size and reach of the LoRA. Without this node, Train LoRA uses the same defaults."
    SEARCH_ALIASES = ["rank", "alpha", "dim", "network", "lora settings"]
    RETURN_TYPES = ("LF_METHOD",)
    RETURN_NAMES = ("lora",)
    OUTPUT_TOOLTIPS = ("The LoRA settings, for Train LoRA.",)
    FUNCTION = "execute"
    WIDGETS = Widgets(AdapterSection)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": optional_inputs(cls.WIDGETS)}

    def execute(self, **values: Any) -> tuple[AdapterSection]:
        return (self.WIDGETS.build(values),)


class TrainingSettings:
    """Length, learning rate, saving, samples, validation."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Length and learning rate of a training, what is saved on the way, and the sample pictures that show what it learns. "
        "Without this node, Train LoRA uses the same defaults."
    )
    SEARCH_ALIASES = ["learning rate", "epochs", "steps", "optimizer", "scheduler", "sample prompts", "training settings"]
    RETURN_TYPES = ("LF_TRAINING",)
    RETURN_NAMES = ("training",)
    OUTPUT_TOOLTIPS = ("The training settings, for Train LoRA.",)
    FUNCTION = "execute"
    PARTS = {
        "train": Widgets(TrainSection),
        "optimizer": Widgets(OptimizerSection, names={"kind": "optimizer", "args": "optimizer_args"}),
        "schedule": Widgets(ScheduleSection, prefix="schedule_", names={"kind": "schedule", "warmup": "warmup"}),
        "save": Widgets(
            SaveSection, prefix="save_", skip=("dir", "name", "run_dir"), names={"comment": "comment"}, advanced=("every_steps",)
        ),
        "sample": Widgets(SampleSection, prefix="sample_", advanced=("every_steps", "at_start", "size", "sampler", "scheduler")),
        "validation": Widgets(ValidateSection, prefix="validation_", skip=("folder",)),  # a folder is a socket of Train LoRA
    }

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": optional_inputs(*cls.PARTS.values())}

    def execute(self, **values: Any) -> tuple[Training]:
        return (Training(**{name: widgets.build(values) for name, widgets in self.PARTS.items()}),)
