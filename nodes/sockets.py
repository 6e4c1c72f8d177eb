"""Inputs that several nodes have."""

from __future__ import annotations

PLAIN_MODELS = {
    "model": ("MODEL", {"tooltip": "The model without the LoRA."}),
    "clip": ("CLIP", {"tooltip": "The text encoder without the LoRA."}),
}
