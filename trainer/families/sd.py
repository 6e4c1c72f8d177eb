"""Stable Diffusion 1.x: one CLIP text encoder, a UNet that predicts noise, a KL autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..diffusion.objective import NoiseSchedule
from ..errors import ConfigError, ModelFileError
from .base import AdapterTarget, Conditioning, FamilySpec, Model
from .build import build, config_of, digest
from .keys import Table, is_linear_attention, rename, unet_table, vae_table
from .text import clip_core, clip_hidden_states, find_clip_tokenizer, match_clip_names
from .weights import WeightFile, open_weights, read_json

if TYPE_CHECKING:
    from ..config import BaseSection

UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
_CONTEXT_KEY = UNET_PREFIX + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class _Part:
    """Where one network of the model comes from."""

    file: WeightFile
    config: Mapping[str, Any]
    names: dict[str, str]  # tensor name in the file -> name in the network


class StableDiffusion:
    """Family code for every model of Stable Diffusion's shape; `spec` says which."""

    def __init__(self, spec: FamilySpec):
        self.spec = spec

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        context = shapes.get(_CONTEXT_KEY)
        has_text = any(name.startswith(TEXT_PREFIX) for name in shapes)
        return has_text and context is not None and context[1] == self.spec.configs["unet"]["cross_attention_dim"]

    def recognise_folder(self, folder: Path, pipeline: str) -> bool:
        if pipeline != "StableDiffusionPipeline":
            return False
        scheduler = folder / "scheduler" / "scheduler_config.json"
        prediction = read_json(scheduler).get("prediction_type", "epsilon") if scheduler.is_file() else "epsilon"
        return prediction == "epsilon" and read_json(folder / "text_encoder" / "config.json").get("hidden_act") == "quick_gelu"

    def load(self, base: BaseSection, device: torch.device, dtype: torch.dtype) -> Model:
        """On the meta device: the networks without their weights, for estimates."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        checkpoint = Path(base.checkpoint)
        parts = _folder_parts(checkpoint) if checkpoint.is_dir() else _file_parts(checkpoint, self.spec)
        if base.vae:
            parts["vae"] = _vae_part(Path(base.vae), self.spec)
        text_config = CLIPTextConfig(**parts["text_encoder"].config)
        if base.clip_skip > text_config.num_hidden_layers:
            raise ConfigError(f"base.clip_skip: {base.clip_skip} is more than the text encoder's {text_config.num_hidden_layers} layers")
        tokenizer = find_clip_tokenizer(base.tokenizer, checkpoint, text_config.max_position_embeddings)
        vae_dtype = torch.float32 if dtype == torch.float16 else dtype  # Stable Diffusion's VAE overflows in fp16

        text = parts["text_encoder"]
        with torch.device("meta"):
            names = match_clip_names(list(text.names.values()), CLIPTextModel(text_config))
        names = {name: names[own] for name, own in text.names.items() if own in names}
        encoder = build(lambda: CLIPTextModel(text_config), "text encoder", text.file, names, dtype, device)
        vae_config = config_of(AutoencoderKL, parts["vae"].config)
        vae = build(lambda: AutoencoderKL(**vae_config), "VAE", *_source(parts["vae"]), vae_dtype, device, _to_linear)
        unet_config = config_of(UNet2DConditionModel, parts["unet"].config)
        unet = build(lambda: UNet2DConditionModel(**unet_config), "UNet", *_source(parts["unet"]), dtype, device)
        # The UNet tells one job from another when resuming; a part of each tensor does for that, and reads in no time.
        identity = {"text_encoder": digest(encoder), "vae": f"{digest(vae)} {vae.config.scaling_factor}", "unet": digest(unet, 1024)}
        return Model(
            spec=self.spec,
            unet=unet.to(device, memory_format=torch.channels_last),
            text_encoder=encoder.to(device),
            vae=vae.to(device, memory_format=torch.channels_last),
            tokenizer=tokenizer,
            schedule=NoiseSchedule.scaled_linear(),
            device=device,
            dtype=dtype,
            clip_skip=base.clip_skip,
            identity=identity,
            files={"model": checkpoint} | ({"vae": Path(base.vae)} if base.vae else {}),
        )

    def enable_checkpointing(self, model: Model) -> None:
        model.unet.enable_gradient_checkpointing()
        model.unet.train()  # both libraries recompute only in training mode; no layer of these networks drops anything
        if model.text_encoder is not None:
            model.text_encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.text_encoder.train()

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

    def encode_text(self, model: Model, captions: list[str]) -> Conditioning:
        encoder = _present(model.text_encoder, "text encoder")
        ids = model.tokenizer.batch(captions).to(model.device)
        return {"context": clip_hidden_states(encoder, ids, model.clip_skip)}

    def predict(self, model: Model, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        noisy = noisy.to(model.dtype, memory_format=torch.channels_last)
        context = conditioning["context"].to(model.dtype)
        return model.unet(noisy, timesteps, encoder_hidden_states=context, return_dict=False)[0].float()

    def adapter_targets(self, model: Model) -> list[AdapterTarget]:
        return [*_text_targets(model.text_encoder), *_unet_targets(model.unet)]


def _text_targets(encoder: nn.Module | None) -> Iterator[AdapterTarget]:
    """The six linear layers of every CLIP layer, named as in transformers 4 whatever the version."""
    if encoder is None:
        return
    for path, module in clip_core(encoder).encoder.named_modules():
        if isinstance(module, nn.Linear):
            yield AdapterTarget("text_encoder", "lora_te_text_model_encoder_" + path.replace(".", "_"), module)


def _unet_targets(unet: nn.Module) -> Iterator[AdapterTarget]:
    """Every linear layer and both projections of the transformer blocks."""
    for path, module in unet.named_modules():
        if ".attentions." in f".{path}." and isinstance(module, (nn.Linear, nn.Conv2d)):
            yield AdapterTarget("unet", "lora_unet_" + path.replace(".", "_"), module)


def _present(part: nn.Module | None, what: str) -> Any:
    assert part is not None, f"the {what} was released before its last use"
    return part


def _source(part: _Part) -> tuple[WeightFile, dict[str, str]]:
    return part.file, part.names


def _to_linear(name: str, tensor: Tensor) -> Tensor:
    """LDM files hold the VAE's attention projections as 1x1 convolutions; diffusers has linear layers."""
    return tensor.flatten(1) if is_linear_attention(name) and tensor.dim() == 4 else tensor


def _file_parts(path: Path, spec: FamilySpec) -> dict[str, _Part]:
    """The three networks inside a single-file checkpoint."""
    file = open_weights(path)

    def part(name: str, prefix: str, table: Table) -> _Part:
        bare = [key.removeprefix(prefix) for key in file.shapes if key.startswith(prefix)]
        return _Part(file, spec.configs[name], {prefix + old: new for old, new in rename(bare, table).items()})

    return {
        "unet": part("unet", UNET_PREFIX, unet_table(spec.configs["unet"])),
        "vae": part("vae", VAE_PREFIX, vae_table(spec.configs["vae"])),
        "text_encoder": part("text_encoder", TEXT_PREFIX, ()),
    }


def _folder_parts(folder: Path) -> dict[str, _Part]:
    """The three networks of a diffusers folder."""
    return {name: _folder_part(folder / name) for name in ("unet", "vae", "text_encoder")}


def _folder_part(folder: Path) -> _Part:
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    endings = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
    path = next((p for ending in endings for stem in stems if (p := folder / (stem + ending)).is_file()), None)
    if path is None:
        raise ModelFileError(f"{folder} holds none of diffusion_pytorch_model.safetensors, model.safetensors or their .bin forms")
    file = open_weights(path)
    return _Part(file, read_json(folder / "config.json"), {name: _modern_vae_name(name) for name in file.shapes})


def _vae_part(path: Path, spec: FamilySpec) -> _Part:
    """An external VAE: a diffusers folder, or a file with LDM names (with or without prefix) or diffusers names."""
    if path.is_dir():
        return _folder_part(path if (path / "config.json").is_file() else path / "vae")
    file = open_weights(path)
    config = spec.configs["vae"]
    if "decoder.up_blocks.0.resnets.0.norm1.weight" in file.shapes:
        return _Part(file, config, {name: _modern_vae_name(name) for name in file.shapes})
    bare = {name.removeprefix(VAE_PREFIX): name for name in file.shapes}
    if "decoder.conv_in.weight" not in bare:
        raise ModelFileError(f"base.vae {path} is not a VAE of {spec.title}: it has no decoder.conv_in.weight")
    return _Part(file, config, {bare[old]: new for old, new in rename(bare, vae_table(config)).items()})


def _modern_vae_name(name: str) -> str:
    """Before diffusers 0.18 the VAE's attention projections had other names."""
    head, _, tail = name.rpartition(".attentions.0.")
    old, _, suffix = tail.rpartition(".")
    return f"{head}.attentions.0.{_OLD_VAE_ATTENTION[old]}.{suffix}" if head and old in _OLD_VAE_ATTENTION else name
