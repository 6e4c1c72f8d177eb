"""The node that shows what a LoRA file is."""

from __future__ import annotations

from typing import Any

from ..trainer.tools.info import read_info
from . import host
from .fingerprint import fingerprint, named
from .sockets import PLAIN_MODELS


class LoraInfo:
    """What is in a LoRA file."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Shows a LoRA's model family, kind, ranks by block, training, tags and trigger words, whether it fits the connected model, "
        "and what is strange about it."
    )
    SEARCH_ALIASES = ["lora metadata", "trigger words", "lora tags", "inspect lora", "lora details", "activation words"]
    RETURN_TYPES = ("STRING", "STRING", "STRING")
    RETURN_NAMES = ("info", "trigger_words", "tags")
    OUTPUT_TOOLTIPS = (
        "All of it, for a person.",
        "The likely trigger words, with commas.",
        "All tags of the training, the most frequent first.",
    )
    FUNCTION = "execute"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        name = (host.model_files("loras"), {"tooltip": "LoRA, LoCon, LoHa, LoKr, DoRA … of any trainer."})
        return {"required": {"lora_name": name}, "optional": PLAIN_MODELS, "hidden": {"node_id": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, lora_name: str | None = None, **_: Any) -> str:
        return fingerprint(named(host.model_path, "loras", lora_name))

    def execute(self, lora_name: str, model: Any = None, clip: Any = None, node_id: str = "") -> dict[str, Any]:
        info = read_info(host.model_path("loras", lora_name))
        lines = info.lines()
        if model is not None or clip is not None:
            known = host.lora_layers(model, clip)
            fitting = sum(known.get(name) == width for name, width in info.inputs.items())
            lines.append(f"fit: {fitting} of {len(info.inputs)} modules have a layer of their width in the connected model")
        text = "\n".join(lines)
        host.show_text(text, node_id)
        return {"ui": {"text": [text]}, "result": (text, ", ".join(info.origin.triggers), ", ".join(info.origin.tags))}
