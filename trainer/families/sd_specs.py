"""Stable Diffusion's architecture as data: what a single-file checkpoint does not say about itself."""

from __future__ import annotations

from .base import FamilySpec, TextPart
from .blocks import SDXL as SDXL_BLOCKS
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

# Stable Diffusion 2: OpenCLIP ViT-H, of whose 24 layers the last is not used, and more attention heads. Its files have linear
# projections around the transformer blocks; kohya and we treat them as the 1x1 convolutions that they were in 1.x.
SD2_UNET = {**UNET, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}
SD2_TEXT_ENCODER = {
    **TEXT_ENCODER,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 1024,
}

SDXL_UNET = {
    **UNET,
    "sample_size": 128,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,  # pooled text 1280, six sizes of 256
}
SDXL_VAE = {**VAE, "sample_size": 1024, "scaling_factor": 0.13025}
SDXL_TEXT_ENCODER_2 = {
    **TEXT_ENCODER,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}

SD15 = FamilySpec(
    name="sd15",
    title="Stable Diffusion 1.5",
    pipeline="StableDiffusionPipeline",
    marks={"epsilon": ("sd_v1", "stable-diffusion-v1"), "v": ("sd_v1_v", "stable-diffusion-v1")},
    implementation="diffusers",
    native_resolution=512,
    max_clip_skip=12,
    text_parts=(TextPart("text_encoder", "lora_te", "cond_stage_model.transformer."),),
    configs={"unet": UNET, "vae": VAE, "text_encoder": TEXT_ENCODER},
    blocks=STABLE_DIFFUSION,
)

SD2 = FamilySpec(
    name="sd2",
    title="Stable Diffusion 2",
    pipeline="StableDiffusionPipeline",
    marks={"epsilon": ("sd_v2", "stable-diffusion-v2-512"), "v": ("sd_v2_v", "stable-diffusion-v2-768-v")},
    implementation="diffusers",
    native_resolution=768,
    max_clip_skip=12,
    text_parts=(TextPart("text_encoder", "lora_te", "cond_stage_model.model.", openclip=True, pad=0),),
    unsaid_prediction=True,
    configs={"unet": SD2_UNET, "vae": VAE, "text_encoder": SD2_TEXT_ENCODER},
    blocks=STABLE_DIFFUSION,
)

SDXL = FamilySpec(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    marks=dict.fromkeys(("epsilon", "v"), ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base")),
    implementation="https://github.com/Stability-AI/generative-models",
    native_resolution=1024,
    max_clip_skip=1,
    text_parts=(
        TextPart("text_encoder", "lora_te1", "conditioner.embedders.0.transformer.", skipped=1, normed=False),
        TextPart(
            "text_encoder_2", "lora_te2", "conditioner.embedders.1.model.", openclip=True, pad=0, skipped=1, normed=False, pooled=True
        ),
    ),
    original_keys=True,
    configs={"unet": SDXL_UNET, "vae": SDXL_VAE, "text_encoder": TEXT_ENCODER, "text_encoder_2": SDXL_TEXT_ENCODER_2},
    blocks=SDXL_BLOCKS,
)
