"""The example workflows about grids and advice."""

from __future__ import annotations

from typing import Any

from workflow_nodes import SD15, SD15_URL, demo_job, node
from workflow_notes import GRID_NOTE, SD15_GRID_NOTE

GRIDS: dict[str, list[dict[str, Any]]] = {
    "strength_epoch_grid": [
        node(1, "MarkdownNote", 0, (420, 560), {"": GRID_NOTE}, title="Read me · 请先阅读"),
        *demo_job("zibu_epochs", 420, sample_every_epochs=0),
        node(
            6,
            "LoraFurnaceGridTrainer",
            1280,
            (560, 1000),
            {
                "x_axis": "lora",
                "y_axis": "strength",
                "y_values": "0.2-1.4/0.2",
                "prompts": "zibu on a blue background\nzibu on a red background",
                "cfg": 3,
                "precision": "fp32",
                "grid_name": "zibu_epochs",
                "figures": True,
            },
            {"base": (2, "base"), "loras": (5, "lora_names"), "dataset": (2, "dataset"), "held_out": (2, "held_out")},
        ),
        node(
            7,
            "LoraFurnaceAdvice",
            1890,
            (480, 800),
            {"attributes": "on a purple background\non an orange background\non a brown background", "cfg": 3, "precision": "fp32"},
            {"base": (2, "base"), "dataset": (2, "dataset"), "held_out": (2, "held_out"), "loras": (5, "lora_names")},
        ),
    ],
    "sd15_grid": [
        node(1, "MarkdownNote", 0, (420, 560), {"": SD15_GRID_NOTE}, title="Read me · 请先阅读"),
        node(2, "CheckpointLoaderSimple", 460, (340, 110), {"ckpt_name": SD15}, models=[(SD15, SD15_URL, "checkpoints")]),
        node(3, "CLIPSetLastLayer", 460, (340, 60), {"stop_at_clip_layer": -1}, {"clip": (2, "CLIP")}),
        node(
            4,
            "LoraFurnaceGrid",
            850,
            (560, 1000),
            {
                "loras": "my_lora*",
                "x_axis": "lora",
                "y_axis": "strength",
                "y_values": "0.4-1/0.2",
                "z_axis": "seed",
                "z_values": "1, 2",
                "prompts": "sks cat in a red hat, photo",
                "grid_name": "my_lora",
                "figures": True,
            },
            {"model": (2, "MODEL"), "clip": (3, "CLIP"), "vae": (2, "VAE")},
        ),
        node(5, "SaveImage", 1460, (420, 420), {"filename_prefix": "lora_grid"}, {"images": (4, "grids")}, title="Grids · 对比图"),
        node(6, "PreviewImage", 1460, (420, 420), links={"images": (4, "images")}, title="Single pictures · 单图"),
    ],
}
