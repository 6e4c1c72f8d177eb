"""Nodes for the settings of a training that do not depend on the model or the pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from ..trainer.config import (
    AdapterSection,
    LossSection,
    MemorySection,
    NoiseSection,
    OptimizerSection,
    SampleSection,
    SaveSection,
    ScheduleSection,
    TrainSection,
    ValidateSection,
)
from ..trainer.config.section import Section
from . import host
from .fingerprint import fingerprint, named
from .widgets import Widgets, optional_inputs

Training = Mapping[str, Any]  # what travels along an LF_TRAINING link: sections of a TrainConfig, under their YAML names, and from_presets
FRESH = "a fresh LoRA"
OPTIMIZER = Widgets(OptimizerSection, names={"kind": "optimizer", "args": "optimizer_args"})
SCHEDULE = Widgets(ScheduleSection, prefix="schedule_", names={"kind": "schedule", "warmup": "warmup"})

log = logging.getLogger(__name__)


class LoraSettings:
    """The adapter that is trained."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = "Size and reach of the LoRA. Without this node, Train LoRA uses the same defaults."
    SEARCH_ALIASES = ["rank", "alpha", "dim", "network", "lora settings"]
    RETURN_TYPES = ("LF_METHOD",)
    RETURN_NAMES = ("lora",)
    OUTPUT_TOOLTIPS = ("The LoRA settings, for Train LoRA.",)
    FUNCTION = "execute"
    WIDGETS = Widgets(AdapterSection, skip=("continue_from",))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        help = AdapterSection.model_fields["continue_from"].description
        options = {"default": FRESH, "tooltip": help, "advanced": True}
        return {
            "required": {},
            "optional": optional_inputs(cls.WIDGETS) | {"continue_from": ([FRESH, *host.model_files("loras")], options)},
        }

    @classmethod
    def IS_CHANGED(cls, continue_from: str | None = FRESH, **_: Any) -> str:
        return fingerprint(named(host.model_path, "loras", continue_from))

    def execute(self, continue_from: str = FRESH, **values: Any) -> tuple[AdapterSection]:
        start = None if continue_from == FRESH else str(host.model_path("loras", continue_from))
        return (self.WIDGETS.build(values, continue_from=start),)


class SettingsNode:
    """A node for whole sections of a TrainConfig; a subclass names them in PARTS. Such nodes form a chain of any length and order."""

    CATEGORY = "LoRA Furnace"
    RETURN_TYPES = ("LF_TRAINING",)
    RETURN_NAMES = ("training",)
    OUTPUT_TOOLTIPS = ("The settings, for Train LoRA or for another settings node.",)
    FUNCTION = "execute"
    PARTS: ClassVar[dict[str, Widgets]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        more = "Settings of another node, such as Loss & Noise, that hold too. What this node sets itself wins."
        inputs = {"training": ("LF_TRAINING", {"tooltip": more}), **optional_inputs(*cls.PARTS.values())}
        return {"required": {}, "optional": inputs, "hidden": {"node_id": "UNIQUE_ID"}}

    def execute(self, training: Training | None = None, node_id: str = "", **values: Any) -> tuple[Training]:
        own = {name: widgets.build(values) for name, widgets in self.PARTS.items()}
        if replaced := _replaced(training or {}, own):
            log.warning("LoRA Furnace: %s", replaced)
            host.show_text(replaced, node_id)
        return ({**(training or {}), **own},)


def _replaced(before: Training, own: Mapping[str, Section]) -> str:
    """What an earlier node of the chain set and this one sets otherwise; that node may have been meant to come after this one."""
    settings = [
        f"{name}.{field} {old!r} becomes {value!r}"
        for name, section in own.items()
        if name in before
        for field, value in section
        if (old := getattr(before[name], field)) not in (value, type(section).model_fields[field].default)
    ]
    words = "this node replaces what one before it set; if that is not meant, connect that one after this one: "
    return words + ", ".join(settings) if settings else ""


class TrainingSettings(SettingsNode):
    """Length, learning rate, saving, samples, validation."""

    DESCRIPTION = (
        "Length and learning rate of a training, what is saved on the way, and the sample pictures that show what it learns. "
        "Without this node, Train LoRA uses the same defaults."
    )
    SEARCH_ALIASES = ["learning rate", "epochs", "steps", "optimizer", "scheduler", "sample prompts", "training settings"]
    PARTS = {
        "train": Widgets(TrainSection),
        "optimizer": OPTIMIZER,
        "schedule": SCHEDULE,
        "save": Widgets(
            SaveSection, prefix="save_", skip=("dir", "name", "run_dir"), names={"comment": "comment"}, advanced=("every_steps",)
        ),
        "sample": Widgets(SampleSection, prefix="sample_", advanced=("every_steps", "at_start", "size", "sampler", "scheduler")),
        "validate": Widgets(ValidateSection, prefix="validation_", skip=("folder",)),  # a folder is a socket of Train LoRA
    }


class Optimizer(SettingsNode):
    """How weights follow gradients."""

    DESCRIPTION = (
        "The optimizer, its learning rates and arguments, by themselves: for several trainings that share it, or to exchange it. "
        "Goes between Training Settings and Train LoRA."
    )
    SEARCH_ALIASES = ["optimizer", "learning rate", "adamw", "8bit", "lion", "prodigy", "adafactor", "lora plus", "unet lr"]
    PARTS = {"optimizer": OPTIMIZER}


class Schedule(SettingsNode):
    """How the learning rate changes over the run."""

    DESCRIPTION = "Learning-rate schedule and warm-up by themselves. Goes between Training Settings and Train LoRA."
    SEARCH_ALIASES = ["learning rate schedule", "lr scheduler", "warmup", "cosine", "restarts", "polynomial"]
    PARTS = {"schedule": SCHEDULE}


class Samples(SettingsNode):
    """Pictures drawn while training."""

    DESCRIPTION = "Prompts, interval, size and sampler of the sample pictures by themselves. Goes between Training Settings and Train LoRA."
    SEARCH_ALIASES = ["sample prompts", "preview", "sample images", "validation images"]
    PARTS = {"sample": Widgets(SampleSection)}


class Memory(SettingsNode):
    """Less memory for a training."""

    DESCRIPTION = (
        "Makes a training fit into less memory: weights of the base model in 8 or 4 bits, or in the computer's memory. "
        "Check Training says what is needed and what would fit. Goes between Training Settings and Train LoRA."
    )
    SEARCH_ALIASES = ["vram", "low memory", "fp8", "int8", "nf4", "quantize", "offload", "block swap", "gradient checkpointing"]
    PARTS = {"memory": Widgets(MemorySection)}


class LossNoise(SettingsNode):
    """The training objective."""

    DESCRIPTION = (
        "How errors count, and which noise the model is trained on: min-SNR, debiased estimation, Huber loss, noise offset, "
        "pyramid noise, timestep range. Connect it to Train LoRA, or to Training Settings. Without it, the usual objective is trained."
    )
    SEARCH_ALIASES = ["min snr gamma", "noise offset", "huber loss", "multires noise", "pyramid noise", "timestep", "prior loss weight"]
    PARTS = {
        "loss": Widgets(LossSection, names={"kind": "loss"}),
        "noise": Widgets(
            NoiseSection,
            names={
                "offset": "noise_offset",
                "offset_random": "noise_offset_random",
                "adaptive_scale": "adaptive_noise_scale",
                "multires_iterations": "multires_noise_iterations",
                "multires_discount": "multires_noise_discount",
                "ip_gamma": "ip_noise_gamma",
                "ip_gamma_random": "ip_noise_gamma_random",
            },
        ),
    }
