"""The `sample` and `validate` sections."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator

from .section import Float, Int, Section, option
from .sizes import Resolution


class Prompt(Section):
    """One sample picture; what is not given comes from the `sample` section."""

    prompt: str = option(..., "Text of the picture.")
    negative: str | None = option(None, "What it should not show.")
    seed: Int | None = option(None, "Noise seed.", ge=0, le=2**64 - 1)
    size: Resolution | None = option(None, "Size in pixels, such as 512x768.")
    steps: Int | None = option(None, "Sampling steps.", ge=1, le=1000)
    cfg: Float | None = option(None, "Guidance scale.", ge=0, le=100)
    sampler: str | None = option(None, "Sampler.")
    scheduler: str | None = option(None, "Noise schedule.")


class SampleSection(Section):
    """Pictures drawn while training, to see what it learns."""

    prompts: tuple[Prompt, ...] = option((), "One text each, or prompt with its own negative, seed, size, steps, cfg, sampler.")
    every_epochs: Int | None = option(1, "Draw every so many epochs.", ge=1)
    every_steps: Int | None = option(None, "Draw every so many steps.", ge=1)
    at_start: bool = option(False, "Draw once before the first step.")
    negative: str = option("", "Negative prompt of all samples.")
    seed: Int = option(1, "Noise seed of all samples.", ge=0, le=2**64 - 1)
    size: Resolution | None = option(None, "Size in pixels; default the training resolution.")
    steps: Int = option(20, "Sampling steps.", ge=1, le=1000)
    cfg: Float = option(7.0, "Guidance scale.", ge=0, le=100, step=0.5)
    sampler: str = option("euler", "Sampler, named as in ComfyUI.")
    scheduler: str = option("normal", "Noise schedule, named as in ComfyUI.")

    @field_validator("prompts", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [line for line in value.splitlines() if line.strip()]
        if not isinstance(value, (list, tuple)):
            return value
        return tuple({"prompt": item} if isinstance(item, str) else item for item in value)


class ValidateSection(Section):
    """How well the model predicts: on pictures that are held out of training, and beside the base model."""

    split: Float = option(0.0, "Share of the pictures to hold out; 0 holds out none.", ge=0, le=0.9, step=0.05)
    folder: str | None = option(None, "A folder of held-out pictures, instead of a share of the training pictures.", advanced=True)
    every_epochs: Int | None = option(1, "Validate every so many epochs.", ge=1, advanced=True)
    every_steps: Int | None = option(None, "Validate every so many steps.", ge=1, advanced=True)
    base_every_steps: Int | None = option(
        50,
        "Every so many steps, measure the base model's own loss on the same pictures and noise too, for the loss analysis; "
        "takes a third of a step.",
        ge=1,
        advanced=True,
    )

    @model_validator(mode="after")
    def _one_source(self) -> ValidateSection:
        if self.split and self.folder:
            raise ValueError("give either split or folder, not both")
        return self
