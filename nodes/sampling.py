"""What every node that draws asks for: prompts, size and the sampler's settings."""

from __future__ import annotations

from ..trainer.config import SampleSection, TrainSection
from . import host
from .widgets import Input, Widgets

SAMPLE = Widgets(SampleSection, names={"sampler": "sampler_name"}, skip=("every_epochs", "every_steps", "at_start", "size"))
PRECISION = Widgets(TrainSection, only=("precision", "device"))


def picture_inputs(side: int) -> dict[str, Input]:
    """What is drawn, how large, and how."""
    sample = SAMPLE.inputs()
    limits = {"default": side, "min": 16, "max": 8192, "step": 8}
    return {
        **{name: sample.pop(name) for name in ("prompts", "negative")},
        "width": ("INT", limits | {"tooltip": "Width of each picture in pixels."}),
        "height": ("INT", limits | {"tooltip": "Height of each picture in pixels."}),
        **sample,
    }


def native_samplers(inputs: dict[str, Input]) -> dict[str, Input]:
    """The same with the samplers and schedulers that this ComfyUI has."""
    known = {"sampler_name": host.samplers(), "scheduler": host.schedulers()}
    return inputs | {name: (names, inputs[name][1]) for name, names in known.items()}
