"""The `train` and `save` sections."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from .section import Float, Int, Section, option


class TrainSection(Section):
    """Length, precision, device."""

    epochs: Int = option(10, "How often the whole dataset is seen.", ge=1, le=100000)
    steps: Int | None = option(None, "Optimizer steps; wins over epochs when given.", ge=1, le=10_000_000)
    precision: Literal["fp32", "bf16", "fp16"] = option("bf16", "Number format of the frozen model. Adapters always train in fp32.")
    seed: Int = option(1, "Everything random follows from it.", ge=0, le=2**63 - 1)
    gradient_accumulation: Int = option(1, "Batches per optimizer step.", ge=1, le=1024, advanced=True)
    gradient_checkpointing: bool = option(False, "Saves memory, costs about a third of the speed.", advanced=True)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps, xpu …", advanced=True)
    ema: Float | None = option(
        None,
        "Saves and draws a running average of the trained weights, with this decay; 0.999 is usual.",
        ge=0,
        le=0.999999,
        step=0.0001,
        advanced=True,
    )
    compile: Literal["off", "default", "reduce-overhead"] = option(
        "off",
        "torch.compile for the image network: faster steps on most GPUs, after minutes for the first ones; reduce-overhead also captures "
        "them as CUDA graphs. Equal up to rounding, which is made sure of at the start.",
        advanced=True,
    )


class SaveSection(Section):
    """What is written where."""

    dir: str = option("out", "Folder of the LoRA files.")
    name: str = option("my_lora", "Name of the LoRA; numbered files are saved on the way.", min_length=1, max_length=128)
    every_epochs: Int | None = option(1, "Save a numbered file every so many epochs.", ge=1)
    every_steps: Int | None = option(None, "Save a numbered file every so many steps.", ge=1)
    dtype: Literal["fp16", "bf16", "fp32"] = option("fp16", "Number format of the saved file.")
    run_dir: str | None = option(None, "Folder of log, samples and resumable state; default <dir>/<name>.", advanced=True)
    comment: str = option("", "Free text kept in the file's metadata.", advanced=True)
    tag_list: Literal["none", "alphabetical", "frequency"] = option(
        "none", "Write every tag of the captions to <name>-tags.txt in the run's folder, by name or with counts.", advanced=True
    )
    keep_last: Int | None = option(None, "Keep only so many of the newest numbered files.", ge=1, advanced=True)
    every_minutes: Float | None = option(
        15.0,
        "Save the resumable state, but no file, after so many minutes without a save.",
        gt=0,
        advanced=True,
    )

    @field_validator("name")
    @classmethod
    def _file_name(cls, value: str) -> str:
        if re.search(r'[\\/:*?"<>|\x00-\x1f]', value) or value.strip(" .") != value:
            raise ValueError(f'{value!r} cannot be a file name: leave out \\ / : * ? " < > | and outer spaces or dots')
        return value
