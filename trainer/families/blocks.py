"""Blocks of a denoiser: their names in the order of weight vectors, and the block that a saved tensor name belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ModelFileError

# What the programs that save adapters put before the path of a module; "transformer_blocks" is a path.
_PREFIX = re.compile(
    r"^(lora_unet_|lora_prior_unet_|lora_transformer_|lycoris_|base_model_model_|model_diffusion_model_|diffusion_model_|unet_"
    r"|transformer_(?!blocks))+"
)


@dataclass(frozen=True)
class BlockTable:
    """The blocks of one architecture, as data. Names are those of the original (LDM) code, as weight vectors use them."""

    title: str
    blocks: Mapping[str, tuple[str, ...]]  # block -> beginnings of module paths with _ for dots; in the order of vectors
    text: Mapping[str, tuple[str, ...]]  # text encoders -> beginnings of saved names with _ for dots
    parts: Mapping[str, tuple[str, ...]]  # "down", "mid", "up" -> blocks, for vectors that are given in three parts
    layouts: tuple[tuple[str, ...], ...]  # vectors in circulation; an entry is a name or a range such as M00-M02
    levels: Mapping[str, int]  # block -> how deep it stands in the network, for drawing
    marks: str  # pattern of saved names that only this architecture has

    @property
    def names(self) -> tuple[str, ...]:
        """Text encoders, then blocks."""
        return (*self.text, *self.blocks)

    def block_of(self, key: str) -> str | None:
        """The block or text encoder of a saved name, whether kohya's, ComfyUI's or diffusers'; None for one of no block."""
        flat = key.replace(".", "_")
        found = _longest(self.text, flat)
        path, prefixes = _PREFIX.subn("", flat)
        return found or (_longest(self.blocks, path + "_", "_") if prefixes or not flat.startswith("lora_") else None)

    def expand(self, entry: str) -> tuple[str, ...]:
        """The names of an entry; a range counts in the order of `names`. KeyError for an unknown name."""
        order = {name: number for number, name in enumerate(self.names)}
        first, _, last = entry.upper().partition("-")
        return self.names[order[first] : order[last or first] + 1]


def _longest(table: Mapping[str, tuple[str, ...]], text: str, end: str = "") -> str | None:
    fitting = [(len(start), name) for name, starts in table.items() for start in starts if text.startswith(start + end)]
    return max(fitting)[1] if fitting else None


def _numbered(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number:02d}" for number in range(count))


def _down(count: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """input_blocks: 0 is conv_in, then two layers and a downsampler per level."""
    yield "IN00", ("input_blocks_0", "conv_in")
    for number in range(1, count):
        level, layer = divmod(number - 1, 3)
        inside = ("downsamplers_0",) if layer == 2 else (f"resnets_{layer}", f"attentions_{layer}")
        yield f"IN{number:02d}", (f"input_blocks_{number}", *(f"down_blocks_{level}_{name}" for name in inside))


def _up(count: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """output_blocks: three layers per level, the upsampler in the third."""
    for number in range(count):
        level, layer = divmod(number, 3)
        inside = (f"resnets_{layer}", f"attentions_{layer}", *(("upsamplers_0",) if layer == 2 else ()))
        yield f"OUT{number:02d}", (f"output_blocks_{number}", *(f"up_blocks_{level}_{name}" for name in inside))


def _levels(down: int, mid: Iterable[str]) -> dict[str, int]:
    """A level has three input and three output blocks; the middle lies below all."""
    count = down // 3
    levels = {name: number // 3 for number, name in enumerate(_numbered("IN", down))} | dict.fromkeys(mid, count)
    return levels | {name: count - 1 - number // 3 for number, name in enumerate(_numbered("OUT", down))}


_TEXT = ("lora_te", "lycoris_te", "text_encoder", "lora_prior_te")
_IN12, _OUT12, _IN9, _OUT9 = _numbered("IN", 12), _numbered("OUT", 12), _numbered("IN", 9), _numbered("OUT", 9)
_ATTENTION = ("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "M00", *_OUT12[3:])
_MID3 = ("M00", "M01", "M02")

STABLE_DIFFUSION = BlockTable(
    title="Stable Diffusion 1 and 2",
    blocks=dict(_down(12)) | {"M00": ("middle_block", "mid_block")} | dict(_up(12)),
    text={"BASE": _TEXT},
    parts={"down": _IN12, "mid": ("M00",), "up": _OUT12},
    layouts=(
        _ATTENTION,
        ("BASE", *_ATTENTION),
        (*_IN12, "M00", *_OUT12),
        ("BASE", *_IN12, "M00", *_OUT12),
    ),
    levels=_levels(12, ("M00",)),
    marks=r"(input_blocks_([12]_1|9|1[01])|output_blocks_(9|1[01])|down_blocks_(0_attentions|3)|up_blocks_3)_",
)

SDXL = BlockTable(
    title="SDXL",
    blocks={"EMB": ("time_embed", "label_emb", "time_embedding", "add_embedding")}
    | dict(_down(9))
    | {
        "M00": ("middle_block_0", "mid_block_resnets_0"),
        "M01": ("middle_block_1", "mid_block_attentions_0"),
        "M02": ("middle_block_2", "mid_block_resnets_1"),
    }
    | dict(_up(9))
    | {"FINAL": ("out", "conv_norm_out", "conv_out")},
    text={"BASE": _TEXT},
    parts={"down": _IN9, "mid": _MID3, "up": _OUT9},
    layouts=(
        ("BASE", "IN04", "IN05", "IN07", "IN08", "M00-M02", *_OUT9[:6]),
        ("BASE", *_IN9, "M00-M02", *_OUT9),
        ("EMB", *_IN9, *_MID3, *_OUT9, "FINAL"),
    ),
    levels=_levels(9, _MID3) | {"EMB": 0, "FINAL": 0},
    marks=r"^(lora_te[12]_|text_encoder_2_|text_encoders_clip_g|lora_unet_(input|middle|output)_block)"
    r"|(attentions_\d|blocks_\d_1|block_1)_transformer_blocks_[1-9]",
)

_DOUBLE, _SINGLE = _numbered("D", 19), _numbered("S", 38)
FLUX = BlockTable(
    title="Flux",
    blocks={"IN": tuple(f"{name}_{end}" for name in ("img", "txt", "time", "vector", "guidance") for end in ("in", "embedder"))
            + ("time_text_embed", "x_embedder", "context_embedder")}
    | {name: (f"double_blocks_{number}", f"transformer_blocks_{number}") for number, name in enumerate(_DOUBLE)}
    | {name: (f"single_blocks_{number}", f"single_transformer_blocks_{number}") for number, name in enumerate(_SINGLE)}
    | {"OUT": ("final_layer", "norm_out", "proj_out")},
    text={
        "CLIP": ("lora_te_", "lora_te1_", "text_encoder_text_model", "text_encoders_clip_l"),
        "T5": ("lora_te2_", "lora_te3_", "text_encoder_2_", "text_encoders_t5xxl"),
    },
    parts={},
    layouts=(("CLIP", "T5", "IN", *_DOUBLE, *_SINGLE, "OUT"),),
    levels=dict.fromkeys(("IN", *_DOUBLE), 0) | dict.fromkeys((*_SINGLE, "OUT"), 1),
    marks=r"_?((double|single)_blocks|single_transformer_blocks)_\d",
)  # fmt: skip

# The first whose marks are found; Stable Diffusion's names alone do not always tell it from its descendants.
BLOCK_TABLES = (FLUX, STABLE_DIFFUSION, SDXL)


def find_block_table(keys: Iterable[str]) -> BlockTable:
    """The table of an adapter file, from the names of its tensors. ModelFileError where none fits."""
    flat = [key.replace(".", "_") for key in keys]
    marked = [table for table in BLOCK_TABLES if any(re.search(table.marks, key) for key in flat)]
    for table in (*marked, STABLE_DIFFUSION):
        if any(table.block_of(key) for key in flat):
            return table
    known = ", ".join(table.title for table in BLOCK_TABLES)
    raise ModelFileError(f"no tensor belongs to a block of {known}; the names start with {next(iter(flat), 'nothing')!r}")
