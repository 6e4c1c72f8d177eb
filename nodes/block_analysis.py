"""Nodes that show which blocks of a LoRA change the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..trainer.block_weights import WeightedLora, read_lora, weight_blocks
from ..trainer.config import BaseSection, SampleSection
from ..trainer.errors import ConfigError
from ..trainer.evaluate.axes import parse_numbers
from ..trainer.evaluate.block_effects import THRESHOLD, BlockEffects, Question, answer, ask, draw_effects
from ..trainer.evaluate.effect_pictures import contact_sheet, effect_charts
from ..trainer.sample import requests
from . import host, pictures
from .block_bars import vector_bars
from .blocks import lora_input, own_presets, presets_for_list
from .bridge import NodeDisplay, run_beside
from .fingerprint import fingerprint, named
from .native_grid import draw_native
from .sampling import PRECISION, SAMPLE, native_samplers, picture_inputs
from .sockets import PLAIN_MODELS
from .widgets import Input

ALIASES = ["block analysis", "effective block analyzer", "lbw analysis", "layer analysis", "which blocks", "block weight"]
VECTOR_HELP = (
    "Weights of the LoRA that everything is compared with: 1 is the whole LoRA. With 0 here and 1 in ratios, each block is seen alone."
)
SETS_HELP = "Blocks that change together: IN04-IN05, M00 OUT03 has two sets. Empty: each block of the LoRA alone."
RATIOS_HELP = "The weight that they get, one after the other: numbers and ranges such as 0-0.5/0.25. 0 leaves them out."
SEEDS_HELP = "So many pictures for each, with seeds counted up from seed. More of them tell chance from effect."
THRESHOLD_HELP = "A pixel counts as changed when a channel differs by more grey levels of 255 than this."
OUTPUTS = {
    "chart": ("IMAGE", "Bars over the network's shape: percent of the pixels that each block changes; one picture per ratio."),
    "sheet": ("IMAGE", "Every picture beside a map of what changed."),
    "table": ("STRING", "The numbers as a table."),
    "csv": ("STRING", "The numbers by seed, for a spreadsheet."),
    "vector": ("STRING", "Suggested weights, without the blocks that change next to nothing: for the vector of Load LoRA (Block Weight)."),
}


class BlockAnalysis:
    """Draws with ComfyUI's own sampler."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Which blocks of a LoRA change the picture: draws it as it is and then with one block after the other at another weight, counts "
        "the pixels that change, and suggests weights. Every picture equals what Load LoRA, KSampler and VAE Decode give."
    )
    SEARCH_ALIASES = ALIASES
    RETURN_TYPES = tuple(kind for kind, _ in OUTPUTS.values())
    RETURN_NAMES = tuple(OUTPUTS)
    OUTPUT_TOOLTIPS = tuple(help for _, help in OUTPUTS.values())
    OUTPUT_NODE = True
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        models = PLAIN_MODELS | {"vae": ("VAE", {"tooltip": "Decodes the pictures."})}
        return {"required": models | native_samplers(_inputs(512)), "hidden": {"node_id": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, lora_name: str | None = None, **_: Any) -> str:
        return fingerprint([*named(host.model_path, "loras", lora_name), host.preset_file()])

    def execute(self, model: Any, clip: Any, vae: Any, lora_name: str, node_id: str = "", **values: Any) -> dict[str, Any]:
        sample, size = _sample(values)
        (request,) = requests(sample, size)

        def draw(lora: WeightedLora, seeds: Sequence[int]) -> Iterator[Image.Image]:
            changed = host.apply_lora(model, clip, lora.tensors(), 1.0)
            for seed in seeds:
                yield draw_native(*changed, vae, replace(request, seed=seed))

        file = host.model_path("loras", lora_name)
        return _answer(answer(_question(file, values), draw, NodeDisplay(node_id)), file.stem, request.prompt)


class BlockAnalysisTrainer:
    """Draws with the trainer's sampler."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = "The block analysis with the trainer's own sampler: for the demo base, which ComfyUI does not load."
    SEARCH_ALIASES = ALIASES
    RETURN_TYPES = BlockAnalysis.RETURN_TYPES
    RETURN_NAMES = BlockAnalysis.RETURN_NAMES
    OUTPUT_TOOLTIPS = BlockAnalysis.OUTPUT_TOOLTIPS
    OUTPUT_NODE = True
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        base = {"base": ("LF_BASE", {"tooltip": "The model without the LoRA: Base Model or Demo Base."})}
        return {"required": base | _inputs(64), "optional": PRECISION.inputs(), "hidden": {"node_id": "UNIQUE_ID"}}

    IS_CHANGED = BlockAnalysis.IS_CHANGED

    def execute(self, base: BaseSection, lora_name: str, node_id: str = "", **values: Any) -> dict[str, Any]:
        sample, size = _sample(values)
        file, options = host.model_path("loras", lora_name), PRECISION.values(values)
        question = _question(file, values)
        effects = run_beside(
            lambda listen, stop: draw_effects(base, file, question, sample, size, listen=listen, stop=stop, **options),
            NodeDisplay(node_id),
        )
        return _answer(effects, file.stem, sample.prompts[0].prompt)


def _inputs(side: int) -> dict[str, Input]:
    drawn = picture_inputs(side)
    drawn.pop("prompts")
    inputs: dict[str, Input] = {
        **lora_input(),
        "vector": ("STRING", {"default": "1", "multiline": True, "tooltip": VECTOR_HELP}),
        "sets": ("STRING", {"default": "", "multiline": True, "tooltip": SETS_HELP}),
        "ratios": ("STRING", {"default": "0", "tooltip": RATIOS_HELP}),
        "prompt": ("STRING", {"default": "", "multiline": True, "tooltip": "What is drawn."}),
        **drawn,
        "seeds": ("INT", {"default": 1, "min": 1, "max": 64, "tooltip": SEEDS_HELP}),
        "threshold": ("INT", {"default": THRESHOLD, "min": 0, "max": 254, "tooltip": THRESHOLD_HELP}),
    }
    return vector_bars(inputs, "vector", presets_for_list().vectors)


def _sample(values: dict[str, Any]) -> tuple[SampleSection, tuple[int, int]]:
    """The sampler's settings and the size; ConfigError where there is nothing to draw."""
    prompt = " ".join(values["prompt"].split())
    if not prompt:
        raise ConfigError("prompt: write what is to be drawn")
    return SAMPLE.build({**values, "prompts": prompt}), (values["width"], values["height"])


def _question(file: Path, values: dict[str, Any]) -> Question:
    lora = weight_blocks(read_lora(file)[0], values["vector"], presets=own_presets())
    seeds = [values["seed"] + number for number in range(values["seeds"])]
    return ask(lora, values["sets"], parse_numbers(values["ratios"], "ratios"), seeds, values["threshold"])


def _answer(effects: BlockEffects, title: str, note: str) -> dict[str, Any]:
    """The chart and the sheet also appear on the node itself."""
    charts, sheet = effect_charts(effects, title), contact_sheet(effects, title, note)
    shown = [host.save_preview(picture) for picture in (*charts, sheet)]
    batch = torch.cat([pictures.to_tensor(chart) for chart in charts])
    return {"ui": {"images": shown}, "result": (batch, pictures.to_tensor(sheet), effects.text(), effects.csv(), effects.vector())}
