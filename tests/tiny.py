"""Tiny random models in the form of real ones, and small datasets, made in code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainer.config import TrainConfig, from_dict

if TYPE_CHECKING:
    from trainer.families import Family, Model

TINY_UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
TINY_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 8, 16, 16],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 64,
    "scaling_factor": 0.18215,
}
TINY_TEXT = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 32,
    "bos_token_id": 598,
    "eos_token_id": 599,
    "pad_token_id": 599,
}

# Family -> configurations; the others differ from 1.5 where the real ones do.
_GELU = {"hidden_act": "gelu"}
TINY: dict[str, dict[str, dict[str, Any]]] = {
    "sd15": {"unet": TINY_UNET, "vae": TINY_VAE, "text_encoder": TINY_TEXT},
    "sd2": {
        "unet": {**TINY_UNET, "attention_head_dim": [2, 4], "use_linear_projection": True},
        "vae": TINY_VAE,
        "text_encoder": {**TINY_TEXT, **_GELU},
    },
    "sdxl": {
        "unet": {
            **TINY_UNET,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2],
            "cross_attention_dim": 80,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 40 + 6 * 8,
        },
        "vae": {**TINY_VAE, "scaling_factor": 0.13025},
        "text_encoder": TINY_TEXT,
        "text_encoder_2": {**TINY_TEXT, **_GELU, "hidden_size": 48, "projection_dim": 40},
    },
}


def byte_letters() -> list[str]:
    """The 256 printable stand-ins for bytes of byte-level BPE (GPT-2's table)."""
    keep = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in keep]
    return [chr(byte) for byte in keep] + [chr(256 + number) for number in range(len(others))]


def write_tokenizer(folder: Path, size: int = 600) -> Path:
    """A CLIP tokenizer that spells every word byte by byte; ids up to `size` are there but unused."""
    letters = byte_letters()
    words = [*letters, *[letter + "</w>" for letter in letters]]
    words += [f"<unused{number}>" for number in range(size - 2 - len(words))]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return folder


def tiny_networks(seed: int = 0, family: str = "sd15") -> dict[str, torch.nn.Module]:
    """UNet, VAE and text encoders with random weights; the output layers are not zero, so that all gradients flow."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    configs = TINY[family]
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    networks: dict[str, torch.nn.Module] = {"unet": UNet2DConditionModel(**configs["unet"]), "vae": AutoencoderKL(**configs["vae"])}
    return networks | {name: kinds[name](CLIPTextConfig(**config)) for name, config in configs.items() if name in kinds}


def write_base(folder: Path, seed: int = 0, family: str = "sd15") -> Path:
    """A tiny model of a family as a diffusers folder."""
    from trainer.families import FAMILIES

    for name, network in tiny_networks(seed, family).items():
        network.save_pretrained(folder / name)
    write_tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "epsilon"}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": FAMILIES[family].spec.pipeline}))
    return folder


def family_of(name: str) -> Family:
    """The real code of a family for single files of the tiny architecture."""
    import dataclasses

    from trainer.families import FAMILIES
    from trainer.families.sd import StableDiffusion

    return StableDiffusion(dataclasses.replace(FAMILIES[name].spec, configs=TINY[name]))


def write_pictures(folder: Path, count: int = 4, sizes: list[tuple[int, int]] | None = None, captions: bool = True) -> Path:
    """Pictures of one colour each, with a caption that names it; `sizes` has one (width, height) per picture."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes or [(64, 64)] * count):
        Image.new("RGB", size, colour(number)).save(folder / f"{number:02d}.png")
        if captions:
            (folder / f"{number:02d}.txt").write_text(caption(number), encoding="utf-8")
    return folder


def colour(number: int) -> tuple[int, int, int]:
    """The colour of picture `number`."""
    return (40 * number % 256, 90 * number % 256, 200 - 20 * number)


def caption(number: int) -> str:
    """The caption of picture `number`: two tags of its own and two that all share."""
    return f"colour {number}, nr{number}, plain, flat"


def job(base: Path, pictures: Path, folder: Path, /, **sections: dict[str, Any]) -> TrainConfig:
    """A short exact training in float32; each section given is laid over the defaults here."""
    values: dict[str, dict[str, Any]] = {
        "base": {"checkpoint": str(base)},
        "dataset": {"folders": [{"path": str(pictures)}], "resolution": 64, "batch_size": 2, "buckets": {"step": 32}},
        "method": {"rank": 4, "alpha": 4},
        "optimizer": {"lr": 1e-2},
        "schedule": {"kind": "constant"},
        "train": {"steps": 4, "precision": "fp32", "device": "cpu"},
        "save": {"dir": str(folder / "out"), "name": "tiny", "dtype": "fp32", "every_epochs": None},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return from_dict(values)


def load_model(base: Path, dtype: torch.dtype = torch.float32, device: str = "cpu", **section: Any) -> tuple[Family, Model]:
    """The family of a base and the loaded model."""
    from trainer.config import BaseSection
    from trainer.families import FAMILIES, find_family

    family = find_family(str(base), "auto", FAMILIES)
    return family, family.load(BaseSection(checkpoint=str(base), **section), torch.device(device), dtype)


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a .safetensors file, read by safetensors itself."""
    from safetensors.torch import load_file

    return load_file(path)


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are not bitwise equal, or are in only one of the two."""
    return [
        name
        for name in sorted(set(first) | set(second))
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    ]
