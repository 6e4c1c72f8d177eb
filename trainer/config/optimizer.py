"""The `optimizer` and `schedule` sections."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from .arguments import parse_arguments
from .section import Float, Int, Section, option

Arguments = Annotated[dict[str, Any], BeforeValidator(parse_arguments)]


class OptimizerSection(Section):
    """How weights follow gradients."""

    kind: str = option("adamw", "Optimizer.")
    lr: Float = option(1e-4, "Learning rate.", ge=0, le=10, step=1e-6)
    unet_lr: Float | None = option(None, "Learning rate of the image part; default `lr`.", ge=0, le=10, step=1e-6)
    text_encoder_lr: Float | None = option(None, "Learning rate of the text encoder; default `lr`.", ge=0, le=10, step=1e-6)
    max_grad_norm: Float = option(1.0, "Gradients are scaled down to this length; 0 switches clipping off.", ge=0, le=1e6, advanced=True)
    args: Arguments = option({}, "Further arguments of the optimizer, such as weight_decay: 0.02.", advanced=True)
    text_encoder_2_lr: Float | None = option(
        None, "Learning rate of the second text encoder of SDXL; default that of the first.", ge=0, le=10, step=1e-6, advanced=True
    )
    lora_plus: Float | None = option(
        None, "LoRA+: the up matrices learn so many times faster; 16 is usual.", gt=0, le=1000, step=0.5, advanced=True
    )


class ScheduleSection(Section):
    """How the learning rate changes over the run."""

    kind: str = option("cosine", "Learning-rate schedule.")
    warmup: Float = option(0.05, "Warm-up: below 1 a part of all steps, from 1 on a number of steps.", ge=0, step=0.01)
    cycles: Int = option(1, "Number of cycles of cosine_with_restarts.", ge=1, le=1000, advanced=True)
    power: Float = option(1.0, "Power of the polynomial schedule.", gt=0, le=10, advanced=True)
