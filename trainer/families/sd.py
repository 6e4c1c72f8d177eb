"""Stable Diffusion 1, 2 and XL: CLIP text encoders, a UNet that predicts noise or velocity, a KL autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..events import Status
from .base import AdapterTarget, Conditioning, FamilySpec, Model, Reading, TargetKind, TextPart, join
from .build import build, config_of, digest
from .keys import rename, unet_table
from .prediction import schedule_of
from .sd_files import Part, file_parts, fits, folder_fits, folder_parts, vae_beside, vae_part
from .text import clip_core, encode_texts, find_clip_tokenizer, match_clip_names

if TYPE_CHECKING:
    from ..config import BaseSection

_BLOCK_KINDS: dict[str, TargetKind] = {"attentions": "plain", "resnets": "conv", "downsamplers": "conv", "upsamplers": "conv"}


class StableDiffusion:
    """Family code for every model of Stable Diffusion's shape; `spec` says which."""

    def __init__(self, spec: FamilySpec):
        self.spec = spec

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        return fits(shapes, self.spec)

    def recognise_folder(self, folder: Path, pipeline: str) -> bool:
        return folder_fits(folder, pipeline, self.spec)

    def load(self, base: BaseSection, device: torch.device, dtype: torch.dtype) -> Model:
        """On the meta device: the networks without their weights, for estimates."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        checkpoint = Path(base.checkpoint)
        parts = folder_parts(checkpoint, self.spec) if checkpoint.is_dir() else file_parts(checkpoint, self.spec)
        beside = None if base.vae else vae_beside(checkpoint)
        if other := Path(base.vae) if base.vae else beside:
            parts["vae"] = vae_part(other, self.spec)
        first = parts[self.spec.text_parts[0].name].config
        if base.clip_skip > first["num_hidden_layers"]:
            raise ConfigError(f"base.clip_skip: {base.clip_skip} is more than the text encoder's {first['num_hidden_layers']} layers")
        schedule, note = schedule_of(base, parts["unet"].file, parts["unet"].names, self.spec.unsaid_prediction)
        tokenizer = find_clip_tokenizer(base.tokenizer, checkpoint, first["max_position_embeddings"])
        vae_dtype = torch.float32 if dtype == torch.float16 else dtype  # Stable Diffusion's VAEs overflow in fp16

        encoders = {text.name: _text_encoder(text, parts[text.name], dtype, device) for text in self.spec.text_parts}
        vae_config = config_of(AutoencoderKL, parts["vae"].config)
        vae = build(lambda: AutoencoderKL(**vae_config), "VAE", *_source(parts["vae"]), vae_dtype, device)
        # Linear and 1x1 projections are the same numbers; the family's way decides the shapes of saved adapters.
        linear = {"use_linear_projection": self.spec.configs["unet"].get("use_linear_projection", False)}
        unet_config = config_of(UNet2DConditionModel, {**parts["unet"].config, **linear})
        unet = build(lambda: UNet2DConditionModel(**unet_config), "UNet", *_source(parts["unet"]), dtype, device)
        # The UNet tells one job from another when resuming; a part of each tensor does for that, and reads in no time.
        identity = {name: digest(encoder) for name, encoder in encoders.items()}
        identity |= {"vae": f"{digest(vae)} {vae.config.scaling_factor}", "unet": digest(unet, 1024)}
        return Model(
            spec=self.spec,
            unet=unet.to(device, memory_format=torch.channels_last),
            text_encoders={name: encoder.to(device) for name, encoder in encoders.items()},
            vae=vae.to(device, memory_format=torch.channels_last),
            tokenizer=tokenizer,
            schedule=schedule,
            device=device,
            dtype=dtype,
            clip_skip=base.clip_skip,
            identity=identity,
            files={"model": checkpoint} | ({"vae": other} if other else {}),
            notes=((note,) if note else ()) + ((Status(f"using the VAE beside the checkpoint: {beside}"),) if beside else ()),
        )

    def enable_checkpointing(self, model: Model, every: int = 1) -> None:
        model.unet.enable_gradient_checkpointing()
        for number, block in enumerate((*model.unet.down_blocks, model.unet.mid_block, *model.unet.up_blocks)):
            for module in block.modules():
                if number % every and getattr(module, "gradient_checkpointing", False):
                    module.gradient_checkpointing = False
        model.unet.train()  # both libraries recompute only in training mode; no layer of these networks drops anything
        for encoder in model.text_encoders.values():
            # transformers 5.23 renamed it, with the same first argument.
            enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
            enable({"use_reentrant": False})
            encoder.train()

    def encode_images(self, model: Model, pixels: Tensor) -> Tensor:
        vae = _present(model.vae, "VAE")
        pixels = pixels.to(model.device, vae.dtype, memory_format=torch.channels_last)
        return vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor

    def decode_latents(self, model: Model, latents: Tensor) -> Tensor:
        vae = _present(model.vae, "VAE")
        scaled = (latents / vae.config.scaling_factor).to(vae.device, vae.dtype, memory_format=torch.channels_last)
        return vae.decode(scaled).sample.float()

    def latent_shape(self, model: Model, size: tuple[int, int]) -> tuple[int, int, int]:
        config = _present(model.vae, "VAE").config
        factor = 2 ** (len(config["block_out_channels"]) - 1)
        return config["latent_channels"], size[1] // factor, size[0] // factor

    def encode_text(self, model: Model, captions: list[str], reading: Reading | None = None) -> Conditioning:
        tokenizer = model.reader(reading)
        texts = [tokenizer.chunks(caption) for caption in captions]
        encoded = [
            encode_texts(_present(model.text_encoders.get(part.name), part.name), part, tokenizer, texts, model.clip_skip)
            for part in self.spec.text_parts
        ]
        result = []
        for text in zip(*encoded, strict=True):
            pooled = [vector for _, vector in text if vector is not None]
            result.append(
                {"context": torch.cat([states for states, _ in text], -1)} | ({"pooled": torch.cat(pooled, -1)} if pooled else {})
            )
        return join(result)

    def predict(self, model: Model, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        noisy = noisy.to(model.dtype, memory_format=torch.channels_last)
        context = conditioning["context"].to(model.dtype)
        added = {}
        if "pooled" in conditioning:
            added = {"added_cond_kwargs": {"text_embeds": conditioning["pooled"].to(model.dtype), "time_ids": conditioning["sizes"]}}
        return model.unet(noisy, timesteps, encoder_hidden_states=context, return_dict=False, **added)[0].float()

    def adapter_targets(self, model: Model) -> list[AdapterTarget]:
        texts = [target for part in self.spec.text_parts for target in _text_targets(part, model.text_encoders.get(part.name))]
        return [*texts, *_unet_targets(model.unet, self.spec.original_keys)]


def _text_encoder(text: TextPart, part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(**part.config)
    kind = CLIPTextModelWithProjection if text.pooled else CLIPTextModel
    with torch.device("meta"):
        own = match_clip_names(list(part.names.values()), kind(config))
    names = {name: own[new] for name, new in part.names.items() if new in own}
    return build(lambda: kind(config), text.name.replace("_", " "), part.file, names, dtype, device)


def _text_targets(part: TextPart, encoder: nn.Module | None) -> Iterator[AdapterTarget]:
    """The six linear layers of every CLIP layer, named as in transformers 4 whatever the version."""
    if encoder is None:
        return
    core = clip_core(encoder)
    used = len(core.encoder.layers) - (0 if part.pooled else part.skipped)
    for path, module in core.encoder.named_modules():
        if isinstance(module, nn.Linear):
            key = f"{part.key}_text_model_encoder_{path}".replace(".", "_")
            yield AdapterTarget(part.name, key, module, used=int(path.split(".")[1]) < used)


def _unet_targets(unet: Any, original_keys: bool) -> Iterator[AdapterTarget]:
    """Every linear layer and both projections of the transformer blocks; of kind "conv", the layers of the other blocks."""
    weights = {f"{path}.weight": module for path, module in unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    names = rename(weights, unet_table(unet.config), to_ldm=True) if original_keys else {name: name for name in weights}
    for name, module in weights.items():
        kind: TargetKind | None = next((_BLOCK_KINDS[part] for part in name.split(".") if part in _BLOCK_KINDS), None)
        if kind is not None:
            yield AdapterTarget("unet", "lora_unet_" + names[name].removesuffix(".weight").replace(".", "_"), module, kind)


def _present(part: nn.Module | None, what: str) -> Any:
    assert part is not None, f"the {what} was released before its last use"
    return part


def _source(part: Part) -> tuple[Any, dict[str, str]]:
    return part.file, part.names
