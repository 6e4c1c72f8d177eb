"""Says what a model file is from the names and shapes in its header, so that a refusal can name what was found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigError, ModelFileError
from .base import Family
from .weights import Shapes, open_weights, read_json

_REFINER = "the SDXL refiner, which only finishes pictures that another model began"
_REFINER_CONTEXT = 1280  # width of the texts that its UNet takes

# (what a person calls it, a part of a tensor name that only such files have); the first that fits is named.
_KNOWN = (
    ("a LoRA or other adapter file", "lora_down.weight"),
    ("a LoRA file", "lora_A.weight"),
    ("a LyCORIS adapter file", "hada_w1_a"),
    ("a LyCORIS adapter file", "lokr_w1"),
    ("a ControlNet", "control_model."),
    ("an SDXL model with another noise schedule (EDM, as Playground 2.5)", "edm_"),
    ("a cut-down SDXL (as SSD-1B or Vega), which has fewer layers than SDXL", "conditioner.embedders.1."),
    (_REFINER, "conditioner.embedders.0.model."),
    ("a Stable Diffusion 3 checkpoint", "joint_blocks.0."),
    ("a Flux model", "double_blocks.0.img_attn"),
    ("a Flux model in diffusers form", "single_transformer_blocks.0."),
    ("a Stable Diffusion 2 unCLIP model, which takes a picture besides the text", "model.diffusion_model.label_emb."),
    ("a Stable Diffusion UNet without its text encoder", "model.diffusion_model.input_blocks."),
    ("a VAE", "decoder.conv_in.weight"),
    ("a text encoder", "text_model.encoder.layers.0."),
    ("a textual inversion", "emb_params"),
)
# Endings of what stands beside 8-bit weights that are to be multiplied by it, as ComfyUI writes it.
_SCALES = (".scale_weight", ".weight_scale", ".comfy_quant", "scaled_fp8")
_FIRST, _CHANNELS = "model.diffusion_model.input_blocks.0.0.weight", 4


def describe(shapes: Shapes) -> str:
    """A few words for a file that no family recognises."""
    channels = shapes.get(_FIRST, (0, _CHANNELS))[1]
    if channels != _CHANNELS:
        return _other_channels(channels)
    for words, part in _KNOWN:
        if any(part in name for name in shapes):
            return words
    names = ", ".join(list(shapes)[:3])
    return f"an unknown file ({len(shapes)} tensors: {names} …)"


def _other_channels(channels: int) -> str:
    return f"an inpainting or editing model (its UNet takes {channels} channels, not {_CHANNELS})"


def find_family(checkpoint: str, wanted: str, families: dict[str, Family]) -> Family:
    """The family of a checkpoint file or diffusers folder. ModelFileError where it is none of `families` or not the wanted one."""
    if wanted != "auto" and wanted not in families:
        raise ConfigError(f"base.family: {wanted!r} is unknown; known: auto, {', '.join(families)}")
    path = Path(checkpoint)
    found, words = _of_folder(path, families.values()) if path.is_dir() else _of_file(path, families.values())
    titles = ", ".join(family.spec.title for family in families.values())
    if found is None:
        raise ModelFileError(f"base.checkpoint {path} is {words}, which cannot be trained on; expected a checkpoint of: {titles}")
    if wanted not in ("auto", found.spec.name):
        raise ModelFileError(
            f"base.checkpoint {path} is {found.spec.title} ({found.spec.name}), but base.family is {wanted!r}; set it to auto"
        )
    return found


def _of_file(path: Path, families: Iterable[Family]) -> tuple[Family | None, str]:
    shapes = open_weights(path).shapes
    if scale := next((name for name in shapes if name.endswith(_SCALES)), None):
        return None, f"a model in scaled 8-bit form ({scale})"
    return next((family for family in families if family.recognise(shapes)), None), describe(shapes)


def _of_folder(path: Path, families: Iterable[Family]) -> tuple[Family | None, str]:
    index = path / "model_index.json"
    if not index.is_file():
        inside = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
        raise ModelFileError(f"base.checkpoint {path} is a folder without model_index.json (found: {inside}); give a diffusers folder")
    kind = read_json(index).get("_class_name", "?")
    unet = path / "unet" / "config.json"
    config = read_json(unet) if unet.is_file() else {}
    channels, words = config.get("in_channels", _CHANNELS), f"a diffusers folder of {kind}"
    if channels != _CHANNELS:
        return None, f"{words}: {_other_channels(channels)}"
    if config.get("cross_attention_dim") == _REFINER_CONTEXT:
        return None, f"{words}: {_REFINER}"
    return next((family for family in families if family.recognise_folder(path, kind)), None), words
