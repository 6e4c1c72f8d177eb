"""Where the networks of a Stable Diffusion come from: a single file, a diffusers folder, an external VAE; and telling them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from .base import FamilySpec, TextPart
from .keys import Table, rename, unet_table, vae_table
from .openclip import OpenClipFile
from .weights import Shapes, WeightFile, open_weights, read_json

UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OTHER_SCHEDULES = ("edm_mean", "edm_std", "edm_vpred.sigma_max")  # marks of models with another noise schedule


@dataclass(frozen=True)
class Part:
    """Where one network of the model comes from."""

    file: WeightFile
    config: Mapping[str, Any]
    names: dict[str, str]  # tensor name in the file -> name in the network


def fits(shapes: Shapes, spec: FamilySpec) -> bool:
    """Whether a single file with these tensors is of the architecture of `spec`."""
    config = spec.configs["unet"]
    level = next(number for number, kind in enumerate(config["down_block_types"]) if "CrossAttn" in kind)
    context = f"down_blocks.{level}.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    depths = config.get("transformer_layers_per_block", 1)
    depth = depths if isinstance(depths, int) else depths[-1]
    telling = ["conv_in.weight", context, *(f"mid_block.attentions.0.transformer_blocks.{n}.norm1.bias" for n in (depth - 1, depth))]
    names = rename([*telling, "add_embedding.linear_1.weight"], unet_table(config), to_ldm=True)
    found = {name: shapes.get(UNET_PREFIX + ldm) for name, ldm in names.items()}
    pictures, words, last, beyond, added = found.values()
    return (
        pictures is not None
        and pictures[1] == config["in_channels"]
        and words is not None
        and words[1] == config["cross_attention_dim"]
        and last is not None
        and beyond is None
        and (added and added[1]) == config.get("projection_class_embeddings_input_dim")
        and all(any(name.startswith(part.prefix) for name in shapes) for part in spec.text_parts)
        and not any(mark in shapes for mark in _OTHER_SCHEDULES)
    )


def folder_fits(folder: Path, pipeline: str, spec: FamilySpec) -> bool:
    """Whether a diffusers folder, whose model_index.json names `pipeline`, is of the architecture of `spec`."""
    if pipeline != spec.pipeline:
        return False
    unet, text = (read_json(folder / part / "config.json") for part in ("unet", "text_encoder"))
    return unet.get("in_channels") == 4 and text.get("hidden_act") == spec.configs["text_encoder"]["hidden_act"]


def file_parts(path: Path, spec: FamilySpec) -> dict[str, Part]:
    """The networks inside a single-file checkpoint."""
    file = open_weights(path)

    def part(name: str, prefix: str, table: Table) -> Part:
        bare = [key.removeprefix(prefix) for key in file.shapes if key.startswith(prefix)]
        return Part(file, spec.configs[name], {prefix + old: new for old, new in rename(bare, table).items()})

    def text_part(text: TextPart) -> Part:
        if not text.openclip:
            return part(text.name, text.prefix, ())
        seen = OpenClipFile(file, text.prefix)
        return Part(seen, spec.configs[text.name], {name: name for name in seen.shapes})

    return {
        "unet": part("unet", UNET_PREFIX, unet_table(spec.configs["unet"])),
        "vae": part("vae", VAE_PREFIX, vae_table(spec.configs["vae"])),
        **{text.name: text_part(text) for text in spec.text_parts},
    }


def folder_parts(folder: Path, spec: FamilySpec) -> dict[str, Part]:
    """The networks of a diffusers folder."""
    return {name: _folder_part(folder / name) for name in ("unet", "vae", *(text.name for text in spec.text_parts))}


def _folder_part(folder: Path) -> Part:
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    endings = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
    path = next((p for ending in endings for stem in stems if (p := folder / (stem + ending)).is_file()), None)
    if path is None:
        raise ModelFileError(f"{folder} holds none of diffusion_pytorch_model.safetensors, model.safetensors or their .bin forms")
    file = open_weights(path)
    return Part(file, read_json(folder / "config.json"), {name: _modern_vae_name(name) for name in file.shapes})


def vae_beside(checkpoint: Path) -> Path | None:
    """A VAE file that stands beside a single-file checkpoint under its name, which web UIs use without asking."""
    endings = (".vae.safetensors", ".vae.pt", ".vae.ckpt")
    beside = [checkpoint.with_name(checkpoint.stem + ending) for ending in endings]
    return None if checkpoint.is_dir() else next((path for path in beside if path.is_file()), None)


def vae_part(path: Path, spec: FamilySpec) -> Part:
    """An external VAE: a diffusers folder, or a file with LDM names (with or without prefix) or diffusers names."""
    if path.is_dir():
        return _folder_part(path if (path / "config.json").is_file() else path / "vae")
    file = open_weights(path)
    config = spec.configs["vae"]
    if "decoder.up_blocks.0.resnets.0.norm1.weight" in file.shapes:
        return Part(file, config, {name: _modern_vae_name(name) for name in file.shapes})
    bare = {name.removeprefix(VAE_PREFIX): name for name in file.shapes}
    if "decoder.conv_in.weight" not in bare:
        raise ModelFileError(f"base.vae {path} is not a VAE of {spec.title}: it has no decoder.conv_in.weight")
    return Part(file, config, {bare[old]: new for old, new in rename(bare, vae_table(config)).items()})


def _modern_vae_name(name: str) -> str:
    """Before diffusers 0.18 the VAE's attention projections had other names."""
    head, _, tail = name.rpartition(".attentions.0.")
    old, _, suffix = tail.rpartition(".")
    return f"{head}.attentions.0.{_OLD_VAE_ATTENTION[old]}.{suffix}" if head and old in _OLD_VAE_ATTENTION else name
