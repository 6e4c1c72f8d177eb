"""A real-size checkpoint with random weights, and random pictures, for measuring."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from .families.keys import is_linear_attention, rename, unet_table, vae_table
from .families.sd import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX
from .families.sd_specs import SD15
from .files import replacing


def random_checkpoint(path: Path) -> Path:
    """A Stable Diffusion 1.5 checkpoint with LDM names in fp16, about 2.1 GB, with a byte-level tokenizer beside it."""
    if not path.is_file():
        from safetensors.torch import save_file

        generator = torch.Generator().manual_seed(0)
        tensors = {name: _random(name, shape, generator) for name, shape in checkpoint_shapes()}
        with replacing(path) as temporary:
            save_file(tensors, str(temporary))
    write_tokenizer(path.parent / "tokenizer")
    return path


def checkpoint_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, as the original file of Stable Diffusion 1.5 has them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from .families.text import clip_core

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15.configs["unet"]).state_dict()
        vae = AutoencoderKL(**SD15.configs["vae"]).state_dict()
        text = clip_core(CLIPTextModel(CLIPTextConfig(**SD15.configs["text_encoder"]))).state_dict()
    for old, new in rename(unet, unet_table(SD15.configs["unet"]), to_ldm=True).items():
        yield UNET_PREFIX + new, tuple(unet[old].shape)
    for old, new in rename(vae, vae_table(SD15.configs["vae"]), to_ldm=True).items():
        shape = tuple(vae[old].shape)
        yield VAE_PREFIX + new, (*shape, 1, 1) if is_linear_attention(old) else shape
    for name, tensor in text.items():
        yield f"{TEXT_PREFIX}text_model.{name}", tuple(tensor.shape)


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Weights that keep activations near unit size; norms are the identity."""
    if len(shape) < 2:
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.float16)
    scale = 0.02 if "embedding" in name else 0.5 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(scale).half()


def write_tokenizer(folder: Path, size: int = 49408) -> Path:
    """A CLIP tokenizer of full size that spells words letter by letter; what it says is meaningless, which speed is not."""
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + number) for number in range(256 - len(letters))]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += [f"<unused{number}>" for number in range(size - 2 - len(words))]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return folder


def random_pictures(folder: Path, count: int, side: int) -> Path:
    """Smooth random pictures with captions."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a photo of thing number {number}, studio light", encoding="utf-8")
    return folder
