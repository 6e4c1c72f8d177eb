"""Stable Diffusion's architecture as data: what a single-file checkpoint does not say about itself."""

from __future__ import annotations

from .base import FamilySpec
from .blocks import STABLE_DIFFUSION

UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
TEXT_ENCODER = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
}

SD15 = FamilySpec(
    name="sd15",
    title="Stable Diffusion 1.5",
    base_model_version="sd_v1",
    architecture="stable-diffusion-v1",
    implementation="diffusers",
    native_resolution=512,
    max_clip_skip=12,
    configs={"unet": UNET, "vae": VAE, "text_encoder": TEXT_ENCODER},
    blocks=STABLE_DIFFUSION,
)
