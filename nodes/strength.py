"""Nodes that draw the same pictures with several LoRA files at several strengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..trainer import strength_test
from ..trainer.config import BaseSection, SampleSection
from ..trainer.errors import ConfigError
from ..trainer.evaluate.axes import parse_numbers
from ..trainer.evaluate.shelf import MemoryShelf
from ..trainer.evaluate.strength import strength_plan
from ..trainer.evaluate.xyz import DrawnGrid, draw_cells
from ..trainer.events import never
from . import host, pictures
from .bridge import NodeDisplay, run_beside
from .fingerprint import fingerprint, named
from .native_grid import NativePainter
from .sampling import PRECISION, SAMPLE, native_samplers, picture_inputs
from .sockets import PLAIN_MODELS
from .widgets import Input

ALIASES = ["lora strength", "lora grid", "xy plot", "compare loras", "lora weight test", "compare epochs"]
LORAS_HELP = "Names of LoRA files, one a line, as Load LoRA lists them; or connect lora_names of Train LoRA."
STRENGTHS_HELP = "Numbers and ranges such as 0-1.2/0.2 (from-to/step). 0 is the base model alone."
GRIDS_HELP = "One labelled grid per prompt: files across, strengths down."
IMAGES_HELP = "The single pictures: prompt by prompt, strength by strength, file by file."


class TestNode:
    """What both strength tests give."""

    CATEGORY = "LoRA Furnace"
    SEARCH_ALIASES = ALIASES
    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("grids", "images")
    OUTPUT_IS_LIST = (True, False)
    OUTPUT_TOOLTIPS = (GRIDS_HELP, IMAGES_HELP)
    OUTPUT_NODE = True
    FUNCTION = "execute"

    @classmethod
    def IS_CHANGED(cls, loras: str | None = None, **_: Any) -> str:
        return fingerprint(named(_files, loras))


class StrengthTest(TestNode):
    """Draws with ComfyUI's own sampler."""

    DESCRIPTION = (
        "Draws prompts with each LoRA file at each strength and puts them into a labelled grid. "
        "Every picture equals what Load LoRA, KSampler and VAE Decode give."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        models = PLAIN_MODELS | {"vae": ("VAE", {"tooltip": "Decodes the pictures."})}
        return {"required": models | native_samplers(_inputs(512)), "hidden": {"node_id": "UNIQUE_ID"}}

    def execute(self, model: Any, clip: Any, vae: Any, loras: str, strengths: str, node_id: str = "", **values: Any) -> dict[str, Any]:
        sample, size = _sample(values)
        plan = strength_plan(_files(loras), parse_numbers(strengths), sample, size)
        return _answer(draw_cells(plan, NativePainter(model, clip, vae), MemoryShelf(), NodeDisplay(node_id), never))


class StrengthTestTrainer(TestNode):
    """Draws with the trainer's sampler."""

    DESCRIPTION = (
        "The strength test with the trainer's own sampler: for the demo base, which ComfyUI does not load. "
        "Its pictures are those of the samples drawn while training."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        base = {"base": ("LF_BASE", {"tooltip": "The model without the LoRA: Base Model or Demo Base."})}
        return {"required": base | _inputs(64), "optional": PRECISION.inputs(), "hidden": {"node_id": "UNIQUE_ID"}}

    def execute(self, base: BaseSection, loras: str, strengths: str, node_id: str = "", **values: Any) -> dict[str, Any]:
        sample, size = _sample(values)
        files, numbers, options = _files(loras), parse_numbers(strengths), PRECISION.values(values)
        test = run_beside(
            lambda listen, stop: strength_test(base, files, numbers, sample, size, listen=listen, stop=stop, **options),
            NodeDisplay(node_id),
        )
        return _answer(test)


def _inputs(side: int) -> dict[str, Input]:
    return {
        "loras": ("STRING", {"multiline": True, "default": "", "tooltip": LORAS_HELP}),
        "strengths": ("STRING", {"default": "0, 0.4, 0.7, 1.0", "tooltip": STRENGTHS_HELP}),
        **picture_inputs(side),
    }


def _sample(values: dict[str, Any]) -> tuple[SampleSection, tuple[int, int]]:
    """The sampler's settings and the size; ConfigError where there is nothing to draw."""
    sample = SAMPLE.build(values)
    if not sample.prompts:
        raise ConfigError("prompts: write at least one prompt, one a line")
    return sample, (values["width"], values["height"])


def _files(names: str) -> list[Path]:
    wanted = list(dict.fromkeys(line.strip() for line in names.splitlines() if line.strip()))
    if not wanted:
        raise ConfigError("loras: write at least one LoRA name, one a line, or connect lora_names of Train LoRA")
    return [host.model_path("loras", name) for name in wanted]


def _answer(test: DrawnGrid) -> dict[str, Any]:
    """The grids also appear on the node itself."""
    grids = list(test.sheets())
    shown = [host.save_preview(grid) for grid in grids]
    images = torch.cat([pictures.to_tensor(picture) for picture in test.pictures()])
    return {"ui": {"images": shown}, "result": ([pictures.to_tensor(grid) for grid in grids], images)}
