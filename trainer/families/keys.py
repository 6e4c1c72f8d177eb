"""Tensor names: original single-file (LDM) names to and from the names of diffusers and transformers.

Each table is a list of (LDM prefix, diffusers prefix) pairs, so that one table serves both directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Table = Sequence[tuple[str, str]]

_RESNET = (
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
)


def unet_table(config: Mapping[str, Any]) -> Table:
    """UNet names without the LDM prefix `model.diffusion_model.`; `config` is that of diffusers' UNet2DConditionModel."""
    layers = config["layers_per_block"]
    down = ["CrossAttn" in kind for kind in config["down_block_types"]]
    up = ["CrossAttn" in kind for kind in config["up_block_types"]]
    table = [
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("input_blocks.0.0.", "conv_in."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
        ("label_emb.0.0.", "add_embedding.linear_1."),
        ("label_emb.0.2.", "add_embedding.linear_2."),
    ]
    for level, attention in enumerate(down):
        for layer in range(layers):
            block = f"input_blocks.{1 + level * (layers + 1) + layer}."
            table += _resnet(block + "0.", f"down_blocks.{level}.resnets.{layer}.")
            if attention:
                table.append((block + "1.", f"down_blocks.{level}.attentions.{layer}."))
        if level < len(down) - 1:
            table.append((f"input_blocks.{(level + 1) * (layers + 1)}.0.op.", f"down_blocks.{level}.downsamplers.0.conv."))
    table += _resnet("middle_block.0.", "mid_block.resnets.0.")
    table.append(("middle_block.1.", "mid_block.attentions.0."))
    table += _resnet("middle_block.2.", "mid_block.resnets.1.")
    for level, attention in enumerate(up):
        for layer in range(layers + 1):
            block = f"output_blocks.{level * (layers + 1) + layer}."
            table += _resnet(block + "0.", f"up_blocks.{level}.resnets.{layer}.")
            if attention:
                table.append((block + "1.", f"up_blocks.{level}.attentions.{layer}."))
        if level < len(up) - 1:
            last = f"output_blocks.{level * (layers + 1) + layers}.{2 if attention else 1}.conv."
            table.append((last, f"up_blocks.{level}.upsamplers.0.conv."))
    return table


def _resnet(ldm: str, diffusers: str) -> list[tuple[str, str]]:
    return [(ldm + a, diffusers + b) for a, b in _RESNET]


def vae_table(config: Mapping[str, Any]) -> Table:
    """VAE names without the LDM prefix `first_stage_model.`; `config` is that of diffusers' AutoencoderKL."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    table: list[tuple[str, str]] = []
    for side, ldm_block, block, count in (("encoder", "down", "down_blocks", layers), ("decoder", "up", "up_blocks", layers + 1)):
        for level in range(levels):
            ldm = f"{side}.{ldm_block}.{level}."
            ours = f"{side}.{block}.{level if side == 'encoder' else levels - 1 - level}."
            for layer in range(count):
                table.append((f"{ldm}block.{layer}.nin_shortcut.", f"{ours}resnets.{layer}.conv_shortcut."))
                table.append((f"{ldm}block.{layer}.", f"{ours}resnets.{layer}."))
            table.append((ldm + "downsample.conv.", ours + "downsamplers.0.conv."))
            table.append((ldm + "upsample.conv.", ours + "upsamplers.0.conv."))
        middle = (("block_1.", "resnets.0."), ("block_2.", "resnets.1."), ("attn_1.norm.", "attentions.0.group_norm."))
        table += [(f"{side}.mid.{a}", f"{side}.mid_block.{b}") for a, b in middle]
        for a, b in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            table.append((f"{side}.mid.attn_1.{a}.", f"{side}.mid_block.attentions.0.{b}."))
        table.append((f"{side}.norm_out.", f"{side}.conv_norm_out."))
    return table


def rename(keys: Iterable[str], table: Table, *, to_ldm: bool = False) -> dict[str, str]:
    """Each key under its name on the other side; a key that no prefix fits keeps its name."""
    pairs = [(b, a) if to_ldm else (a, b) for a, b in table]
    by_prefix = dict(sorted(pairs, key=lambda pair: -len(pair[0])))
    result = {}
    for key in keys:
        parts = key.split(".")
        candidates = (".".join(parts[:n]) + "." for n in range(len(parts) - 1, 0, -1))
        prefix = next((candidate for candidate in candidates if candidate in by_prefix), None)
        result[key] = by_prefix[prefix] + key[len(prefix) :] if prefix else key
    return result


def is_linear_attention(key: str) -> bool:
    """Whether a VAE tensor is one of the attention projections that LDM files hold as 1x1 convolutions."""
    return ".attentions.0.to_" in key and key.endswith("weight")
