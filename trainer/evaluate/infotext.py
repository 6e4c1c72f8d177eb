"""A picture's settings as web UIs write them below a picture: the "parameters" text that they read back.

The form: prompt, a line "Negative prompt: …", a line "Steps: …, Sampler: …, …" whose values are quoted where they hold a
comma, a colon or a line end. LoRAs stand in the prompt as <lora:name:strength>, or <lora:name:text strength:image strength>.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from .. import __version__
from ..data.cache import file_digest
from .cells import Cell, LoraUse

# ComfyUI's names to those that web UIs show.
SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
    "lcm": "LCM",
}
SCHEDULERS = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
}


def infotext(cell: Cell, model: Path | None = None) -> str:
    """The text for one picture; `model` is the checkpoint, whose name and hash are noted."""
    request = cell.request
    values: dict[str, object] = {
        "Steps": request.steps,
        "Sampler": SAMPLERS.get(request.sampler, request.sampler),
        "Schedule type": SCHEDULERS.get(request.scheduler, request.scheduler),
        "CFG scale": request.cfg,
        "Seed": request.seed,
        "Size": "{}x{}".format(*request.size),
    }
    if model is not None:
        values |= {"Model hash": file_digest(model)[:10]} if model.is_file() else {}
        values["Model"] = model.stem
    if cell.loras:
        values["Lora hashes"] = ", ".join(f"{use.file.stem}: {_weights_hash(use.file, file_digest(use.file))[:12]}" for use in cell.loras)
    values["Version"] = f"LoRA Furnace {__version__}"
    lines = [request.prompt + "".join(f" {_tag(use)}" for use in cell.loras)]
    lines += [f"Negative prompt: {request.negative}"] if request.negative else []
    return "\n".join([*lines, ", ".join(f"{name}: {_quoted(str(value))}" for name, value in values.items())])


def _tag(use: LoraUse) -> str:
    strengths = [use.strength] if use.text_strength == use.strength else [use.text_strength, use.strength]
    blocks = f":lbw={use.blocks}" if use.blocks else ""
    return f"<lora:{use.file.stem}:{':'.join(f'{strength:g}' for strength in strengths)}{blocks}>"


@lru_cache(maxsize=1000)
def _weights_hash(file: Path, whole: str) -> str:
    """The digest of a safetensors file without its header, by whose start web UIs know a LoRA; `whole`, of all, for other files."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        if file.suffix != ".safetensors" or start > file.stat().st_size:
            return whole
        stream.seek(start)
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
