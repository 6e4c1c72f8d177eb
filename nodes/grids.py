"""X/Y/Z grid nodes: on ComfyUI's own sampler, and on the trainer's."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import torch

from ..trainer import draw_grid
from ..trainer.block_weights import read_presets
from ..trainer.config import BaseSection, SampleSection, SaveSection, TrainSection
from ..trainer.diffusion.samplers import SAMPLERS, SCHEDULERS
from ..trainer.errors import ConfigError
from ..trainer.evaluate.axes import AXES, Names, lora_axis, make_axis, parse_uses
from ..trainer.evaluate.cells import LoraUse
from ..trainer.evaluate.lora_files import run_files, training_order
from ..trainer.evaluate.shelf import FolderShelf
from ..trainer.evaluate.xyz import DrawnGrid, GridPlan, draw_cells, write_sheets
from ..trainer.events import never
from ..trainer.sample import requests
from . import graph, host, pictures
from .bridge import NodeDisplay, run_beside
from .native_grid import NativePainter
from .sockets import PLAIN_MODELS
from .widgets import Input, Widgets

SAMPLE = Widgets(SampleSection, names={"sampler": "sampler_name"}, skip=("every_epochs", "every_steps", "at_start", "size"))
NAME = Widgets(SaveSection, only=("name",), names={"name": "grid_name"})
PRECISION = Widgets(TrainSection, only=("precision", "device"))
NOTHING = "nothing"
ALIASES = ["xyz plot", "xy plot", "lora grid", "lora strength", "compare loras", "compare epochs", "efficiency"]
GRIDS_HELP = "Labelled grids: X across, Y down, a page for each prompt and value of Z. They are in the folder of the grid too."
IMAGES_HELP = "The single pictures: page by page, row by row."


class Grid:
    """Draws with ComfyUI's own sampler."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Draws a grid over LoRA files, strengths, block weights, checkpoints, words of the prompt, seeds, CFG, steps or samplers. "
        "Every picture equals what Load LoRA, KSampler and VAE Decode give and is saved at once: after Cancel, queue the same again."
    )
    SEARCH_ALIASES = ALIASES
    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("grids", "images")
    OUTPUT_IS_LIST = (True, False)
    OUTPUT_TOOLTIPS = (GRIDS_HELP, IMAGES_HELP)
    OUTPUT_NODE = True
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        models = PLAIN_MODELS | {"vae": ("VAE", {"tooltip": "Decodes the pictures."})}
        inputs = _inputs(512)
        for name, known in (("sampler_name", host.samplers()), ("scheduler", host.schedulers())):
            inputs[name] = (known, inputs[name][1])
        hidden = {"node_id": "UNIQUE_ID", "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        return {"required": models | inputs, "hidden": hidden}

    def execute(
        self, model: Any, clip: Any, vae: Any, node_id: str = "", prompt: Any = None, extra_pnginfo: Any = None, **values: Any
    ) -> dict[str, Any]:
        plan = _plan(values, host.samplers(), host.schedulers())
        painter = NativePainter(model, clip, vae, graph.origin_of(prompt, node_id, ("model", "clip", "vae")))
        folder = _folder(values)
        shelf = FolderShelf(folder / "cells", graph.metadata(prompt, extra_pnginfo), graph.checkpoint_of(prompt, node_id, "model"))
        return _answer(draw_cells(plan, painter, shelf, NodeDisplay(node_id), never), folder)


class GridTrainer:
    """Draws with the trainer's sampler."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "The grid with the trainer's own sampler: for the demo base, which ComfyUI does not load. "
        "Every picture is saved at once: after Cancel, queue the same again to go on."
    )
    SEARCH_ALIASES = ALIASES
    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("grids", "images")
    OUTPUT_IS_LIST = (True, False)
    OUTPUT_TOOLTIPS = (GRIDS_HELP, IMAGES_HELP)
    OUTPUT_NODE = True
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        base = {"base": ("LF_BASE", {"tooltip": "The model without the LoRA: Base Model or Demo Base."})}
        hidden = {"node_id": "UNIQUE_ID", "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        return {"required": base | _inputs(64), "optional": PRECISION.inputs(), "hidden": hidden}

    def execute(self, base: BaseSection, node_id: str = "", prompt: Any = None, extra_pnginfo: Any = None, **values: Any) -> dict[str, Any]:
        plan, folder = _plan(values, list(SAMPLERS), list(SCHEDULERS)), _folder(values)
        shelf = FolderShelf(folder / "cells", graph.metadata(prompt, extra_pnginfo), Path(base.checkpoint))
        options = PRECISION.values(values)
        grid = run_beside(
            lambda listen, stop: draw_grid(base, plan, shelf=shelf, listen=listen, stop=stop, **options), NodeDisplay(node_id)
        )
        return _answer(grid, folder)


def _inputs(side: int) -> dict[str, Input]:
    sample = SAMPLE.inputs()
    limits = {"default": side, "min": 16, "max": 8192, "step": 8}
    text = {"multiline": True, "default": ""}
    helps = "; ".join(f"{name}: {kind.help}" for name, kind in AXES.items())
    defaults = {"x": ("lora", ""), "y": ("strength", "0-1.2/0.3"), "z": (NOTHING, "")}
    axes: dict[str, Input] = {}
    for name, where in (("x", "across"), ("y", "down"), ("z", "from page to page")):
        axes[f"{name}_axis"] = ([NOTHING, *AXES], {"default": defaults[name][0], "tooltip": f"What varies {where}."})
        axes[f"{name}_values"] = ("STRING", text | {"default": defaults[name][1], "tooltip": f"Values of this axis. {helps}"})
    loras = (
        "LoRA files for an axis lora without values of its own, one a line, or the one to test. Patterns (cat*) and runs (cat/) are known."
    )
    stack = "LoRAs that are in every picture, one a line: name:strength, or name:strength:strength of the text encoder."
    return {
        "loras": ("STRING", text | {"tooltip": f"{loras} Or connect lora_names of Train LoRA."}),
        **axes,
        **{name: sample.pop(name) for name in ("prompts", "negative")},
        "width": ("INT", limits | {"tooltip": "Width of each picture in pixels."}),
        "height": ("INT", limits | {"tooltip": "Height of each picture in pixels."}),
        **sample,
        "stack": ("STRING", text | {"tooltip": stack}),
        "grid_name": (
            "STRING",
            {"default": "grid", "tooltip": "Folder of the grid in output/lora_furnace/grids; its pictures are drawn once."},
        ),
    }


def _plan(values: dict[str, Any], samplers: list[str], schedulers: list[str]) -> GridPlan:
    presets = [path for path in (host.preset_file(),) if path.is_file()]
    names = Names(_loras, lambda name: str(host.model_path("checkpoints", name)), samplers, schedulers, read_presets(*presets))
    sample = SAMPLE.build(values)
    files = [file for line in values["loras"].splitlines() if line.strip() for file in _loras(line.strip())]
    kinds = {name: values[f"{name}_axis"] for name in "xyz" if values[f"{name}_axis"] != NOTHING}
    own = {name: values[f"{name}_values"].strip() for name in kinds}
    from_list = [name for name, kind in kinds.items() if kind == "lora" and not own[name] and files]
    if len(files) > 1 and not from_list:
        raise ConfigError(f"loras: {len(files)} files need an axis `lora` without values of its own; or name one")
    axes = {name: lora_axis(files) if name in from_list else make_axis(kind, own[name], names) for name, kind in kinds.items()}
    tested = (LoraUse(files[0]),) if files else ()
    first = next((LoraUse(axis.values[0]) for axis in axes.values() if axis.kind == "lora"), None)
    tested = tested or ((first,) if first else ())
    size = (values["width"], values["height"])
    return GridPlan(tuple(requests(sample, size)), (*tested, *parse_uses(values["stack"], names)), **axes)


def _loras(text: str) -> list[Path]:
    """A name as Load LoRA lists it; a pattern of such names; or the name of a run with a slash: all files that it saved."""
    if text.endswith("/"):
        found = run_files(host.output_folder() / Path(text).name)
    elif any(mark in text for mark in "*?["):
        names = host.model_files("loras")
        found = sorted(
            (host.model_path("loras", name) for name in fnmatch.filter(names, f"{text.removesuffix('.safetensors')}.safetensors")),
            key=training_order,
        )
    else:
        found = [host.model_path("loras", text)]
    if not found:
        raise ConfigError(f"loras: {text!r} names no LoRA file")
    return found


def _folder(values: dict[str, Any]) -> Path:
    return host.output_folder() / "grids" / NAME.build(values).name


def _answer(grid: DrawnGrid, folder: Path) -> dict[str, Any]:
    """The sheets, which are saved and shown on the node, and the single pictures."""
    sheets = write_sheets(grid, folder)
    images = torch.cat([pictures.to_tensor(picture) for picture in grid.pictures()])
    return {
        "ui": {"images": [host.output_reference(path) for path in sheets]},
        "result": ([pictures.open_picture(path) for path in sheets], images),
    }
