"""A real-size checkpoint with random weights, and random pictures, for measuring."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .families import FAMILIES, FamilySpec
from .families.keys import is_linear_attention, rename, unet_table, vae_table
from .families.openclip import to_openclip
from .families.sd_files import UNET_PREFIX, VAE_PREFIX
from .files import replacing

_PROJECTIONS = ("proj_in.weight", "proj_out.weight")  # around the UNet's transformer blocks


def random_checkpoint(path: Path, family: str) -> Path:
    """A checkpoint of a family with LDM names in fp16 (2.1 to 6.9 GB), with a byte-level tokenizer beside it."""
    if not path.is_file():
        with replacing(path) as temporary:
            _write(temporary, dict(checkpoint_shapes(FAMILIES[family].spec)))
    write_tokenizer(path.parent / "tokenizer")
    return path


def _write(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A .safetensors file, one tensor in memory at a time; the numbers depend on the shapes alone."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            file.write(_random(name, shape, generator).numpy().data)


def checkpoint_shapes(spec: FamilySpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, as the original file of a family has them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet_config, vae_config = spec.configs["unet"], spec.configs["vae"]
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**unet_config).state_dict(), AutoencoderKL(**vae_config).state_dict()
    linear = any(part.openclip for part in spec.text_parts)  # Stable Diffusion 2 brought OpenCLIP and linear projections
    for old, new in rename(unet, unet_table(unet_config), to_ldm=True).items():
        shape = tuple(unet[old].shape)
        yield UNET_PREFIX + new, shape[:2] if linear and old.endswith(_PROJECTIONS) else shape
    for old, new in rename(vae, vae_table(vae_config), to_ldm=True).items():
        shape = tuple(vae[old].shape)
        yield VAE_PREFIX + new, (*shape, 1, 1) if is_linear_attention(old) else shape
    for part in spec.text_parts:
        shapes = _text_shapes(spec.configs[part.name], part.pooled)
        renamed = to_openclip(shapes) if part.openclip else {f"text_model.{name}": shape for name, shape in shapes.items()}
        yield from ((part.prefix + name, shape) for name, shape in renamed.items())


def _text_shapes(config: Mapping[str, Any], pooled: bool) -> dict[str, tuple[int, ...]]:
    """A text encoder's tensors without `text_model.`, whatever the library's version."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        network = (CLIPTextModelWithProjection if pooled else CLIPTextModel)(CLIPTextConfig(**config))
    return {name.removeprefix("text_model."): tuple(tensor.shape) for name, tensor in network.state_dict().items()}


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
