"""The demo base model's parts: tokenizer, networks in the exact form of Stable Diffusion 1.5, and the diffusers folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

SCALING_FACTOR = 0.18215
"""Stable Diffusion's own; the autoencoder is rescaled until it fits (see `whiten`)."""
WIDTH = 128
START, END = "<|startoftext|>", "<|endoftext|>"
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}


# ---------------------------------------------------------------- tokenizer


def byte_characters() -> list[str]:
    """The 256 printable characters that stand for bytes in GPT-2's and CLIP's vocabularies, in their order."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in kept] + [chr(256 + i) for i in range(256 - len(kept))]


def learn_merges(captions: list[str], count: int) -> list[tuple[str, str]]:
    """Byte-pair merges of the captions' words, most frequent first, ties in alphabetical order."""
    words = Counter(word for caption in captions for word in caption.lower().replace(",", " , ").split())
    parts = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in parts.items():
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        parts = {word: _merged(pieces, best) for word, pieces in parts.items()}
    return merges


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for piece in pieces:
        if result and (result[-1], piece) == pair:
            result[-1] += piece
        else:
            result.append(piece)
    return result


def save_tokenizer(captions: list[str], folder: Path, merges: int = 400) -> None:
    """Writes CLIP's tokenizer files. Every byte has a token, so every word can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs, letters = learn_merges(captions, merges), byte_characters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in pairs), START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "errors": "replace"}
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", special)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a saved folder."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def encode_captions(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token numbers (N, 77), padded with the end token as Stable Diffusion 1.5 does."""
    return tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


# ---------------------------------------------------------------- networks


def build_autoencoder() -> AutoencoderKL:
    """64 × 64 pixels ↔ latents (4, 16, 16)."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 96),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
        scaling_factor=SCALING_FACTOR,
    )


def start_linear(autoencoder: AutoencoderKL) -> None:
    """Sets first weights under which the network already returns its input in blocks of 4 × 4 pixels.

    Three latent channels start as the blocks' mean red, green and blue, passed through the shortcuts; all residual
    branches start silent. A group normalisation would wipe out a flat colour p, so p goes through it together
    with -p and large constants, which keep mean and deviation of the group steady. From random weights a small
    autoencoder spends its first thousand steps finding this.
    """
    import torch

    with torch.no_grad():
        for name, parameter in autoencoder.named_parameters():
            if ".conv2." in name or ".to_out." in name:
                parameter.zero_()
        _start_encoder(autoencoder)
        _start_decoder(autoencoder)


def _route(convolution: torch.nn.Conv2d, links: list[tuple[int, int, int, int, float]]) -> None:
    """Makes the outputs in links carry only the linked inputs: (output, input, row and column of the kernel, gain)."""
    for out, *_ in links:
        convolution.weight[out] = 0
        convolution.bias[out] = 0
    for out, source, row, column, gain in links:
        convolution.weight[out, source, row, column] = gain


def _pass_group(norm: torch.nn.GroupNorm, shortcut: torch.nn.Conv2d, channels: range, sources: dict[int, float]) -> None:
    """Lets a signal pass a normalisation group: p in its first channel, -p in its second, constants in the others."""
    size = 6.0
    first, second, *others = channels
    _route(shortcut, [(out, source, 0, 0, sign * gain) for out, sign in ((first, 1), (second, -1)) for source, gain in sources.items()])
    _route(shortcut, [(out, 0, 0, 0, 0.0) for out in others])
    constants = [size if i % 2 == 0 else -size for i in range(len(others))]
    for out, constant in zip(others, constants, strict=True):
        shortcut.bias[out] = constant
    mean = sum(constants) / len(channels)
    deviation = (sum((value - mean) ** 2 for value in [0, 0, *constants]) / len(channels)) ** 0.5
    for out in (first, second):
        norm.weight[out] = deviation
        norm.bias[out] = 4.0 + mean  # SiLU is almost straight around 4


def _start_encoder(autoencoder: AutoencoderKL) -> None:
    encoder, corners = autoencoder.encoder, [(0, 0), (0, 1), (1, 0), (1, 1)]
    _route(encoder.conv_in, [(c, c, 1, 1, 1.0) for c in range(3)])
    halve, quarter = (encoder.down_blocks[i].downsamplers[0].conv for i in (0, 1))
    _route(halve, [(4 * c + i, c, *corner, 1.0) for c in range(3) for i, corner in enumerate(corners)])
    _route(encoder.down_blocks[1].resnets[0].conv_shortcut, [(c, c, 0, 0, 1.0) for c in range(12)])
    _route(quarter, [(4 * c + i, c, *corner, 1.0) for c in range(12) for i, corner in enumerate(corners)])
    shortcut = encoder.down_blocks[2].resnets[0].conv_shortcut
    for c in range(3):
        _pass_group(encoder.conv_norm_out, shortcut, range(12 * c, 12 * c + 12), {16 * c + i: 1 / 16 for i in range(16)})
    _route(encoder.conv_out, [(c, 12 * c + i, 1, 1, 0.5 - i) for c in range(3) for i in range(2)])
    _route(autoencoder.quant_conv, [(c, c, 0, 0, 1.0) for c in range(8)])
    encoder.conv_out.weight[4:] *= 0.1
    encoder.conv_out.bias[4:] = -6.0  # little noise on the latents


def _start_decoder(autoencoder: AutoencoderKL) -> None:
    decoder, same = autoencoder.decoder, [(c, c, 0, 0, 1.0) for c in range(3)]
    middle = [(c, c, 1, 1, 1.0) for c in range(3)]
    _route(autoencoder.post_quant_conv, [(c, c, 0, 0, 1.0) for c in range(4)])
    _route(decoder.conv_in, middle)
    for block in decoder.up_blocks[:2]:
        _route(block.upsamplers[0].conv, middle)
    _route(decoder.up_blocks[1].resnets[0].conv_shortcut, same)
    shortcut = decoder.up_blocks[2].resnets[0].conv_shortcut
    for c in range(3):
        _pass_group(decoder.conv_norm_out, shortcut, range(3 * c, 3 * c + 3), {c: 1.0})
    _route(decoder.conv_out, [(c, 3 * c + i, 1, 1, 0.5 - i) for c in range(3) for i in range(2)])


def build_unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.5's blocks, three levels instead of four."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,  # as in Stable Diffusion 1.5 this is the number of heads
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text model, 128 wide and 3 layers deep."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def whiten(autoencoder: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Gives every latent channel mean 0 and deviation 1 / SCALING_FACTOR without changing a single picture.

    `mean` and `std` (4) are what the channels have now. The change goes into the last 1×1 convolution of the
    encoder and, inverted, into the first of the decoder.
    """
    import torch

    gain = 1.0 / (std * SCALING_FACTOR)
    count = len(gain)
    with torch.no_grad():
        encode, decode = autoencoder.quant_conv, autoencoder.post_quant_conv
        decode.bias += decode.weight[:, :, 0, 0] @ mean
        decode.weight /= gain[None, :, None, None]
        encode.weight[:count] *= gain[:, None, None, None]
        encode.bias[:count] = (encode.bias[:count] - mean) * gain
        encode.bias[count:] += 2 * gain.log()


def noise_levels() -> torch.Tensor:
    """The share of the clean picture's variance left at each timestep, (1000,): the schedule of Stable Diffusion."""
    import torch

    count = SCHEDULER["num_train_timesteps"]
    betas = torch.linspace(SCHEDULER["beta_start"] ** 0.5, SCHEDULER["beta_end"] ** 0.5, count, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


# ---------------------------------------------------------------- folder


def save_folder(folder: Path, autoencoder: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
    """Writes fp16 weights, configurations and the index; the tokenizer is already there."""
    import torch

    for name, model in (("vae", autoencoder), ("unet", unet)):
        model.to(torch.float16).save_pretrained(folder / name)
    _save_text_encoder(text_encoder.to(torch.float16), folder / "text_encoder")
    (folder / "scheduler").mkdir(exist_ok=True)
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", index)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


def _save_text_encoder(model: CLIPTextModel, folder: Path) -> None:
    """Saves under the names of every published SD 1.5 folder, whichever names the installed transformers uses."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"text_model." + name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    tensors.pop("text_model.embeddings.position_ids", None)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    settings = {**model.config.to_dict(), "architectures": ["CLIPTextModel"]}
    _write_json(folder / "config.json", settings)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
