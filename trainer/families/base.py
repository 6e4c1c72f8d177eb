"""What a model family supplies, and the values that the loop handles without knowing any family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .blocks import BlockTable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..config import BaseSection
    from ..diffusion.objective import NoiseSchedule

Conditioning = dict[str, "Tensor"]  # named tensors, batch first; the same names for every caption of a family


@dataclass(frozen=True)
class FamilySpec:
    """Facts of one base-model family that are data, not code."""

    name: str
    title: str
    base_model_version: str  # kohya's ss_base_model_version
    architecture: str  # modelspec.architecture, without the "/lora" ending
    implementation: str  # modelspec.implementation
    native_resolution: int
    max_clip_skip: int
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # part name -> library configuration for single files
    blocks: BlockTable | None = None  # for block-wise training


@dataclass
class Model:
    """A loaded base model. A part that is no longer needed is set to None, which frees its memory."""

    spec: FamilySpec
    unet: Any  # networks of diffusers and transformers
    text_encoder: Any | None
    vae: Any | None
    tokenizer: Any  # has `ids(caption)` and `limit`
    schedule: NoiseSchedule
    device: torch.device
    dtype: torch.dtype
    clip_skip: int
    identity: dict[str, str]  # part name -> digest of the weights, for content-addressed caches
    files: dict[str, Path]  # part name -> file, for metadata


@dataclass(frozen=True)
class AdapterTarget:
    """A layer that an adapter may join: where it is, and the key under which it is saved."""

    part: str  # "unet" or "text_encoder"
    key: str  # saved name without the tensor suffix, for example "lora_unet_mid_block_attentions_0_proj_in"
    module: nn.Module


class Family(Protocol):
    """The code of one model family. Functions of a loaded `Model`; no state of their own."""

    spec: FamilySpec

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether a single-file checkpoint with these tensors is of this family."""
        ...

    def recognise_folder(self, folder: Path, pipeline: str) -> bool:
        """Whether a diffusers folder, whose model_index.json names `pipeline`, is of this family."""
        ...

    def load(self, base: BaseSection, device: torch.device, dtype: torch.dtype) -> Model: ...

    def enable_checkpointing(self, model: Model) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        ...

    def encode_images(self, model: Model, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to scaled latents (B, C, h, w) in float32."""
        ...

    def decode_latents(self, model: Model, latents: Tensor) -> Tensor:
        """Scaled latents to pixels (B, 3, H, W), nominally in [-1, 1], float32."""
        ...

    def latent_shape(self, model: Model, size: tuple[int, int]) -> tuple[int, int, int]:
        """(C, h, w) of the latents of a picture of `size` (width, height) pixels."""
        ...

    def encode_text(self, model: Model, captions: list[str]) -> Conditioning: ...

    def predict(self, model: Model, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The model's output for noisy latents (B, C, h, w) and timesteps (B,), float32, of the shape of `noisy`."""
        ...

    def adapter_targets(self, model: Model) -> list[AdapterTarget]:
        """The layers that a plain LoRA trains, in saving order."""
        ...
