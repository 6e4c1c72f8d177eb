"""A handle on the pack as ComfyUI loads it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fake_comfy import FakeComfy

ROOT = Path(__file__).resolve().parents[2]
_STARTS = {"IN04": "down_blocks_1_attentions_0", "M00": "mid_block_attentions_0", "OUT03": "up_blocks_1_attentions_0"}
# A layer of the text encoder and of some blocks, by the names of LoRA files.
BLOCK_KEYS = {block: f"lora_unet_{start}_proj_in" for block, start in _STARTS.items()} | {
    "BASE": "lora_te_text_model_encoder_layers_0_mlp_fc1"
}


@dataclass(frozen=True)
class Pack:
    """The loaded pack: `call` runs a node as ComfyUI does, on constants and other nodes' results."""

    module: ModuleType
    comfy: FakeComfy

    def node(self, name: str) -> type:
        return self.module.NODE_CLASS_MAPPINGS[f"LoraFurnace{name}"]

    def part(self, name: str) -> ModuleType:
        """A module of the pack, such as "nodes.runs"."""
        return sys.modules[f"{self.module.__name__}.{name}"]

    def call(self, name: str, **inputs: Any) -> Any:
        kind = self.node(name)
        return getattr(kind(), kind.FUNCTION)(**defaults(kind) | inputs)

    def base(self) -> Any:
        """A tiny random Stable Diffusion 1.5."""
        section = self.part("trainer.config").BaseSection
        return section(checkpoint=str(self.comfy.base / "tiny_base"))


def defaults(kind: type) -> dict[str, Any]:
    """The widgets of a node as they stand after it was added."""
    inputs = kind.INPUT_TYPES()
    found = {**inputs.get("required", {}), **inputs.get("optional", {})}
    return {name: options["default"] for name, (_, options) in found.items() if "default" in options}
