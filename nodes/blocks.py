"""Nodes for blocks: what each trains with, and what weight each has when a LoRA is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..trainer.block_weights import Presets, WeightedLora, read_lora, read_presets, save_weighted, weight_blocks
from ..trainer.config import AdapterSection, BlockSection, SaveSection
from ..trainer.errors import ConfigError
from . import host
from .block_bars import part_bars, vector_bars
from .fingerprint import fingerprint, named
from .outputs import AnyName
from .sockets import PLAIN_MODELS
from .widgets import Input, Widgets, optional_inputs

OWN_VECTOR = "vector"  # the preset that means: what is written beside it
ALIASES = ["lbw", "lora block weight", "layer weight", "block weight", "lora blocks"]
TABLE_HELP = "Which block got which weight, and what should be known about it."


class BlockWeights:
    """Block-wise training."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = "Learning rates, ranks and alphas that differ from block to block. Goes between LoRA Settings and Train LoRA."
    SEARCH_ALIASES = ["block lr", "layer-wise learning rate", "block dims", "down_lr_weight", "block-wise training"]
    RETURN_TYPES = ("LF_METHOD",)
    RETURN_NAMES = ("lora",)
    OUTPUT_TOOLTIPS = ("The LoRA settings with these blocks, for Train LoRA. It shows the resulting table.",)
    FUNCTION = "execute"
    WIDGETS = Widgets(BlockSection)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        lora = ("LF_METHOD", {"tooltip": "LoRA Settings; their defaults if nothing is connected."})
        inputs = {"lora": lora, **optional_inputs(cls.WIDGETS)}
        return {"required": {}, "optional": part_bars(inputs, ("down", "mid", "up"), "weights")}

    def execute(self, lora: AdapterSection | None = None, **values: Any) -> tuple[AdapterSection]:
        return ((lora or AdapterSection()).model_copy(update={"blocks": self.WIDGETS.build(values)}),)


class LoadLoraBlockWeight:
    """Load LoRA with a weight for each block."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = "Load LoRA with a weight for each block. Values are read by block name, so a LoRA over some blocks shifts nothing."
    SEARCH_ALIASES = ALIASES
    RETURN_TYPES = ("MODEL", "CLIP", "STRING")
    RETURN_NAMES = ("model", "clip", "table")
    OUTPUT_TOOLTIPS = ("The model with the LoRA.", "The text encoder with the LoRA.", TABLE_HELP)
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": PLAIN_MODELS | lora_input() | _strengths() | _block_inputs()}

    @classmethod
    def IS_CHANGED(cls, lora_name: str | None = None, **_: Any) -> str:
        return fingerprint([*named(host.model_path, "loras", lora_name), host.preset_file()])

    def execute(self, model: Any, clip: Any, lora_name: str, strength_model: float, strength_clip: float, **blocks: Any) -> tuple[Any, ...]:
        lora = _weighted(host.load_lora(host.model_path("loras", lora_name)), **blocks)
        return (*host.apply_lora(model, clip, lora.tensors(), strength_model, strength_clip), lora.text(measured=False))


class BlockWeightHook:
    """The same as a hook, which can begin and end while a picture is drawn."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "A block-weighted LoRA as ComfyUI's hook: it acts only from one part of the sampling to another. "
        "Connect it to Set CLIP Hooks or Cond Set Props."
    )
    SEARCH_ALIASES = [*ALIASES, "lora start end", "lora schedule", "hook"]
    RETURN_TYPES = ("HOOKS", "STRING")
    RETURN_NAMES = ("hooks", "table")
    OUTPUT_TOOLTIPS = ("For Set CLIP Hooks or Cond Set Props.", TABLE_HELP)
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        part = {"min": 0.0, "max": 1.0, "step": 0.01}
        window = {
            "start": ("FLOAT", part | {"default": 0.0, "tooltip": "The LoRA begins after this part of the sampling; 0.25 is a quarter."}),
            "stop": ("FLOAT", part | {"default": 1.0, "tooltip": "The LoRA ends after this part of the sampling."}),
        }
        return {"required": lora_input() | _strengths() | window | _block_inputs()}

    IS_CHANGED = LoadLoraBlockWeight.IS_CHANGED

    def execute(
        self, lora_name: str, strength_model: float, strength_clip: float, start: float, stop: float, **blocks: Any
    ) -> tuple[Any, str]:
        if start >= stop:
            raise ConfigError(f"stop: {stop:g} is not after start {start:g}, so the LoRA would never act")
        lora = _weighted(host.load_lora(host.model_path("loras", lora_name)), **blocks)
        return host.lora_hook(lora.tensors(), strength_model, strength_clip, start, stop), lora.text(measured=False)


class SaveBlockWeightedLora:
    """Writes what Load LoRA (Block Weight) loads as a file."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = "Saves a LoRA with other block weights as a new file in models/loras, with its metadata and a note of its origin."
    SEARCH_ALIASES = [*ALIASES, "save lora", "lora edit"]
    RETURN_TYPES = (AnyName("COMBO,STRING"), "STRING")
    RETURN_NAMES = ("lora_name", "table")
    OUTPUT_TOOLTIPS = (
        "Name of the new file, for the lora_name of Load LoRA.",
        "The strength of each block of the original, and its weight.",
    )
    OUTPUT_NODE = True
    FUNCTION = "execute"
    NAME = Widgets(SaveSection, only=("name",), names={"name": "save_as"})

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        name = {"save_as": ("STRING", {"default": "", "tooltip": "Name of the new file, which must not exist yet; empty: <LoRA>_blocks."})}
        return {"required": lora_input() | name | _block_inputs()}

    IS_CHANGED = LoadLoraBlockWeight.IS_CHANGED

    def execute(self, lora_name: str, save_as: str, **blocks: Any) -> dict[str, Any]:
        source = host.model_path("loras", lora_name)
        name = self.NAME.build({"save_as": save_as.strip() or f"{source.stem}_blocks"}).name
        tensors, metadata = read_lora(source)
        lora = _weighted(tensors, **blocks)
        target = host.lora_folder() / f"{name}.safetensors"
        save_weighted(target, lora, metadata, source.name)
        picture = host.save_preview(lora.picture(target.stem))
        return {"ui": {"images": [picture]}, "result": (target.name, lora.text())}


def lora_input() -> dict[str, Input]:
    return {"lora_name": (host.model_files("loras"), {"tooltip": "LoRA, LoCon, LoHa, LoKr or DoRA for SD 1, SD 2, SDXL or Flux."})}


def _strengths() -> dict[str, Input]:
    limits = {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}
    return {
        "strength_model": ("FLOAT", limits | {"tooltip": "Strength of the image part; multiplies the weights of its blocks."}),
        "strength_clip": ("FLOAT", limits | {"tooltip": "Strength of the text encoders; multiplies their weights."}),
    }


def _block_inputs() -> dict[str, Input]:
    presets = presets_for_list().vectors
    vector = "Weights: one number, a list (SD 17 or 26, SDXL 12 or 20, Flux 61 values), or block=number items such as IN04-IN08=0.5. "
    rules = "Weights of some layers, blocks:elements:weight, one a line: IN05-OUT05:attn:0, or NOT M00:to_k:0.5. Also names of presets."
    inputs: dict[str, Input] = {
        "preset": (
            [OWN_VECTOR, *presets],
            {"default": OWN_VECTOR, "tooltip": "A named vector, or what is written below."},
        ),
        "vector": ("STRING", {"default": "1", "multiline": True, "tooltip": vector + "R and U are random, 0 to 1 and -0.5 to 1.5."}),
        "rules": ("STRING", {"default": "", "multiline": True, "tooltip": rules}),
        "seed": ("INT", {"default": 0, "min": 0, "max": 2**53, "tooltip": "Of the random weights.", "control_after_generate": False}),
    }
    return vector_bars(inputs, "vector", presets, ("preset", OWN_VECTOR))


def _preset_files() -> list[Path]:
    """The user's own presets, where there are any."""
    return [path for path in (host.preset_file(),) if path.is_file()]


def own_presets() -> Presets:
    """Ours and the user's; ConfigError names a mistake in the user's file."""
    return read_presets(*_preset_files())


def presets_for_list() -> Presets:
    """A mistake in the user's file is reported when the node runs; it must not take the node away."""
    try:
        return own_presets()
    except ConfigError:
        return read_presets()


def _weighted(tensors: Any, preset: str, vector: str, rules: str, seed: int) -> WeightedLora:
    chosen = vector if preset == OWN_VECTOR else preset
    return weight_blocks(tensors, chosen, rules, presets=own_presets(), seed=seed)
