"""X/Y/Z grid nodes: on ComfyUI's own sampler, and on the trainer's."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import torch

from ..trainer import draw_grid
from ..trainer.block_weights import read_presets
from ..trainer.config import BaseSection, SaveSection
from ..trainer.diffusion.samplers import SAMPLERS, SCHEDULERS
from ..trainer.errors import ConfigError
from ..trainer.evaluate.axes import AXES, Names, lora_axis, make_axis, parse_uses
from ..trainer.evaluate.cells import LoraUse
from ..trainer.evaluate.clip import Clip, load_clip
from ..trainer.evaluate.figures import report_grid
from ..trainer.evaluate.lora_files import run_files, training_order
from ..trainer.evaluate.references import read_references
from ..trainer.evaluate.shelf import FolderShelf
from ..trainer.evaluate.xyz import DrawnGrid, GridPlan, draw_cells, write_sheets
from ..trainer.events import never
from ..trainer.sample import requests
from . import graph, host, pictures
from .bridge import NodeDisplay, run_beside
from .fingerprint import fingerprint, named
from .native_grid import NativePainter
from .sampling import PRECISION, SAMPLE, native_samplers, picture_inputs
from .sockets import PLAIN_MODELS
from .widgets import Input, Widgets

NAME = Widgets(SaveSection, only=("name",), names={"name": "grid_name"})
NOTHING = "nothing"
FILE_AXES = ("lora", "checkpoint")  # whose values are files
ALIASES = ["xyz plot", "xy plot", "lora grid", "lora strength", "compare loras", "compare epochs", "efficiency"]
GRIDS_HELP = "Labelled grids: X across, Y down, a page for each prompt and value of Z. They are in the folder of the grid too."
TABLE_HELP = "The figures of every picture as CSV; they are in the folder too, as figures.csv."
NO_CLIP = "none"
IMAGES_HELP = "The single pictures: page by page, row by row."


class GridNode:
    """What both grid nodes give."""

    CATEGORY = "LoRA Furnace"
    SEARCH_ALIASES = ALIASES
    RETURN_TYPES = ("IMAGE", "IMAGE", "STRING")
    RETURN_NAMES = ("grids", "images", "table")
    OUTPUT_IS_LIST = (True, False, False)
    OUTPUT_TOOLTIPS = (GRIDS_HELP, IMAGES_HELP, TABLE_HELP)
    OUTPUT_NODE = True
    FUNCTION = "execute"

    @classmethod
    def IS_CHANGED(cls, **values: Any) -> str:
        return fingerprint([*_typed_files(values), host.preset_file()])


class Grid(GridNode):
    """Draws with ComfyUI's own sampler."""

    DESCRIPTION = (
        "Draws a grid over LoRA files, strengths, block weights, checkpoints, words of the prompt, seeds, CFG, steps or samplers. "
        "Every picture equals what Load LoRA, KSampler and VAE Decode give and is saved at once: after Cancel, queue the same again."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        models = PLAIN_MODELS | {"vae": ("VAE", {"tooltip": "Decodes the pictures."})}
        hidden = {"node_id": "UNIQUE_ID", "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        return {"required": models | native_samplers(_inputs(512)), "optional": _figure_inputs(), "hidden": hidden}

    def execute(
        self, model: Any, clip: Any, vae: Any, node_id: str = "", prompt: Any = None, extra_pnginfo: Any = None, **values: Any
    ) -> dict[str, Any]:
        plan = _plan(values, host.samplers(), host.schedulers())
        likeness = _likeness(values)
        painter = NativePainter(model, clip, vae, graph.origin_of(prompt, node_id, ("model", "clip", "vae")))
        folder = _folder(values)
        shelf = FolderShelf(folder / "cells", graph.metadata(prompt, extra_pnginfo), graph.checkpoint_of(prompt, node_id, "model"))
        grid = draw_cells(plan, painter, shelf, NodeDisplay(node_id), never, with_plain=values.get("figures", False))
        return _answer(grid, folder, values, likeness, node_id)


class GridTrainer(GridNode):
    """Draws with the trainer's sampler."""

    DESCRIPTION = (
        "The grid with the trainer's own sampler: for the demo base, which ComfyUI does not load. "
        "Every picture is saved at once: after Cancel, queue the same again to go on."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        base = {"base": ("LF_BASE", {"tooltip": "The model without the LoRA: Base Model or Demo Base."})}
        hidden = {"node_id": "UNIQUE_ID", "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        return {"required": base | _inputs(64), "optional": PRECISION.inputs() | _figure_inputs(), "hidden": hidden}

    def execute(self, base: BaseSection, node_id: str = "", prompt: Any = None, extra_pnginfo: Any = None, **values: Any) -> dict[str, Any]:
        plan, folder = _plan(values, list(SAMPLERS), list(SCHEDULERS)), _folder(values)
        likeness = _likeness(values)
        shelf = FolderShelf(folder / "cells", graph.metadata(prompt, extra_pnginfo), Path(base.checkpoint))
        options = PRECISION.values(values) | {"shelf": shelf, "with_plain": values.get("figures", False)}
        grid = run_beside(lambda listen, stop: draw_grid(base, plan, listen=listen, stop=stop, **options), NodeDisplay(node_id))
        return _answer(grid, folder, values, likeness, node_id)


def _inputs(side: int) -> dict[str, Input]:
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
        **picture_inputs(side),
        "stack": ("STRING", text | {"tooltip": stack}),
        "grid_name": (
            "STRING",
            {"default": "grid", "tooltip": "Folder of the grid in output/lora_furnace/grids; its pictures are drawn once."},
        ),
    }


def _plan(values: dict[str, Any], samplers: list[str], schedulers: list[str]) -> GridPlan:
    presets = [path for path in (host.preset_file(),) if path.is_file()]
    names = Names(_loras, _checkpoint, samplers, schedulers, read_presets(*presets))
    sample = SAMPLE.build(values)
    files = _listed(values["loras"])
    kinds = {name: values[f"{name}_axis"] for name in "xyz" if values[f"{name}_axis"] != NOTHING}
    own = {name: values[f"{name}_values"].strip() for name in kinds}
    from_list = [name for name, kind in kinds.items() if kind == "lora" and not own[name] and files]
    if len(files) > 1 and not from_list:
        raise ConfigError(f"loras: {len(files)} files need an axis `lora` without values of its own; or name one")
    axes = {name: lora_axis(files) if name in from_list else make_axis(kind, own[name], names) for name, kind in kinds.items()}
    tested = LoraUse(files[0]) if files else None
    size = (values["width"], values["height"])
    return GridPlan(tuple(requests(sample, size)), tested, parse_uses(values["stack"], names), **axes)


def _typed_files(values: dict[str, Any]) -> list[Path]:
    """The files that the node's own texts name."""
    axes = [(values.get(f"{name}_axis"), values.get(f"{name}_values")) for name in "xyz"]
    return [
        *named(_listed, values.get("loras")),
        *named(_stacked, values.get("stack")),
        *(file for kind, text in axes if kind in FILE_AXES for file in named(_axis_files, kind, text)),
        *named(host.model_path, "clip_vision", values.get("clip_vision")),
    ]


def _axis_files(kind: str, text: str) -> list[Path]:
    return [Path(value) for value in make_axis(kind, text, Names(_loras, _checkpoint)).values]


def _stacked(text: str) -> list[Path]:
    return [use.file for use in parse_uses(text, Names(_loras, _checkpoint))]


def _listed(text: str) -> list[Path]:
    return [file for line in text.splitlines() if line.strip() for file in _loras(line.strip())]


def _checkpoint(name: str) -> str:
    return str(host.model_path("checkpoints", name))


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
    return host.own_folder("grids") / NAME.build(values).name


def _figure_inputs() -> dict[str, Input]:
    """What the pictures are measured against."""
    files = [NO_CLIP, *(host.model_files("clip_vision") if "clip_vision" in host.model_kinds() else ())]
    clip = "A model that sees what is in a picture, for likeness to the training pictures; from models/clip_vision."
    return {
        "figures": ("BOOLEAN", {"default": False, "tooltip": "Measure every picture: table, heat maps below the grid, curves."}),
        "clip_vision": (files, {"default": NO_CLIP, "tooltip": clip}),
        "dataset": ("LF_DATASET", {"tooltip": "The training pictures, to see whether some were learned by heart."}),
        "held_out": (
            "LF_DATASET",
            {"tooltip": "Pictures that were never trained on; a prompt that equals a caption is compared with its picture."},
        ),
    }


def _likeness(values: dict[str, Any]) -> Clip | None:
    """The model of `clip_vision`, where pictures are measured with one; loaded before they are drawn, it fails before too."""
    name = values.get("clip_vision", NO_CLIP)
    return load_clip(host.model_path("clip_vision", name)) if values.get("figures", False) and name != NO_CLIP else None


def _answer(grid: DrawnGrid, folder: Path, values: dict[str, Any], likeness: Clip | None, node_id: str) -> dict[str, Any]:
    """The sheets, which are saved and shown on the node, the single pictures, and the figures."""
    table = ""
    if values.get("figures", False):
        report = report_grid(grid, folder, read_references(values.get("dataset"), values.get("held_out")), likeness)
        table = report.table.csv()
        sheets = [*report.sheets, *(path for path in report.files if path.suffix == ".png")]
        if report.notes:
            host.show_text("\n".join(report.notes), node_id)
    else:
        sheets = write_sheets(grid, folder)
    images = torch.cat([pictures.to_tensor(picture) for picture in grid.pictures()])
    shown = [host.output_reference(path) for path in sheets]
    return {"ui": {"images": shown}, "result": ([pictures.open_picture(path) for path in sheets], images, table)}
