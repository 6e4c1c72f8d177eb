"""Tiny random models in the form of real ones, and small datasets, made in code."""

from __future__ import annotations

import json
from pathlib import Path

import torch

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


def tiny_networks(seed: int = 0) -> dict[str, torch.nn.Module]:
    """UNet, VAE and text encoder with random weights; the output layers are not zero, so that all gradients flow."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    return {
        "unet": UNet2DConditionModel(**TINY_UNET),
        "vae": AutoencoderKL(**TINY_VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TINY_TEXT)),
    }


def write_base(folder: Path, seed: int = 0) -> Path:
    """A tiny Stable Diffusion 1.5 as a diffusers folder."""
    for name, network in tiny_networks(seed).items():
        network.save_pretrained(folder / name)
    write_tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "epsilon"}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def write_pictures(folder: Path, count: int = 4, size: tuple[int, int] = (64, 64), captions: bool = True) -> Path:
    """Pictures of one colour each, with a caption that names it."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (40 * number % 256, 90 * number % 256, 200 - 20 * number)).save(folder / f"{number:02d}.png")
        if captions:
            (folder / f"{number:02d}.txt").write_text(f"colour {number}, plain", encoding="utf-8")
    return folder
