"""The node that reads a loss curve."""

from __future__ import annotations

from typing import Any

from ..trainer.evaluate.losses import analyse_loss_map
from . import host, pictures


class LossAnalysis:
    """What the losses of a training say."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Says in words whether a training converged, still falls, swings, diverges or learned nothing, with the numbers it rests on, "
        "and draws the curve. Also takes the LOSS_MAP of ComfyUI's own Train LoRA."
    )
    SEARCH_ALIASES = ["loss curve", "loss graph", "convergence", "overfitting", "did it converge"]
    RETURN_TYPES = ("STRING", "IMAGE", "STRING")
    RETURN_NAMES = ("verdict", "curve", "by_timestep")
    OUTPUT_TOOLTIPS = (
        "The verdict and its numbers.",
        "The loss of every step, smoothed, with validation, learning rates and losses by timestep where they are known.",
        "The loss of each part of the timesteps, early and late in the run; empty where the training did not record it.",
    )
    FUNCTION = "execute"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        losses = ("LOSS_MAP", {"tooltip": "The losses of a training: LOSS_MAP of a node that trains."})
        return {"required": {"losses": losses}, "hidden": {"node_id": "UNIQUE_ID"}}

    def execute(self, losses: dict[str, Any], node_id: str = "") -> dict[str, Any]:
        report = analyse_loss_map(losses)
        text = "\n".join(report.lines())
        host.show_text(text, node_id)
        curve = pictures.draw_curve(losses)
        table = "\n".join(report.band_lines())
        return {"ui": {"images": [host.save_preview(curve)]}, "result": (text, pictures.to_tensor(curve), table)}
