"""What a model family supplies, and the values that the loop handles without knowing any family."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from .blocks import BlockTable

if TYPE_CHECKING:
    from ..config import BaseSection
    from ..diffusion.objective import NoiseSchedule
    from ..events import Status, Warned

TargetKind = Literal["plain", "conv"]  # what a plain LoRA trains; what joins where convolutions are trained too (LoCon)

# Named tensors, batch first; the same names for every caption of a family. Who makes a batch adds `sizes` (B, 6): original
# height and width, top and left of the crop, target height and width, in pixels.
Conditioning = dict[str, Tensor]


def join(parts: Sequence[Conditioning]) -> Conditioning:
    """One batch out of several.

    Sequences (B, length, width) of unequal lengths are repeated up to a common one. Cross-attention does not notice: it gives
    each of n copies an n-th of the attention (ComfyUI does the same).
    """
    result = {}
    for name in parts[0]:
        tensors = [part[name] for part in parts]
        if tensors[0].dim() == 3:
            length = math.lcm(*(tensor.shape[1] for tensor in tensors))
            tensors = [tensor.repeat(1, length // tensor.shape[1], 1) for tensor in tensors]
        result[name] = torch.cat(tensors)
    return result


@dataclass(frozen=True)
class Reading:
    """How texts are read. The default is a plain caption of at most one chunk."""

    chunks: int | None = 1  # the most chunks of 75 tokens; None is as many as a text needs
    weighted: bool = False  # whether (word:1.2) is emphasis
    brackets: bool = False  # whether [word] is emphasis too


PROMPT = Reading(chunks=None, weighted=True)  # as ComfyUI reads prompts


@dataclass(frozen=True)
class TextPart:
    """One text encoder of a family."""

    name: str  # of the part: "text_encoder", "text_encoder_2"
    key: str  # start of the saved names of its adapters
    prefix: str  # of its tensors in single files
    openclip: bool = False  # whether single files hold it under OpenCLIP's names
    pad: int | None = None  # the token behind the end mark; None repeats the end mark
    skipped: int = 0  # so many layers at the end have no say in the hidden states
    normed: bool = True  # whether the hidden states go through the final layer norm
    pooled: bool = False  # whether it also gives one projected vector per text


@dataclass(frozen=True)
class FamilySpec:
    """Facts of one base-model family that are data, not code."""

    name: str
    title: str
    pipeline: str  # class name in a diffusers folder's model_index.json
    marks: Mapping[str, tuple[str, str]]  # prediction -> ss_base_model_version, modelspec.architecture without "/lora"
    implementation: str  # modelspec.implementation
    native_resolution: int
    max_clip_skip: int
    text_parts: tuple[TextPart, ...]
    original_keys: bool = False  # whether adapters of the UNet are saved under its LDM names instead of diffusers'
    unsaid_prediction: bool = False  # whether there are models of both predictions whose files do not say which
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # part name -> library configuration for single files
    blocks: BlockTable | None = None  # for block-wise training


@dataclass
class Model:
    """A loaded base model. A part that is no longer needed is set to None or taken out, which frees its memory."""

    spec: FamilySpec
    unet: Any  # networks of diffusers and transformers
    text_encoders: dict[str, Any]  # part name -> network
    vae: Any | None
    tokenizer: Any  # has `ids(text)`, `chunks(text)`, `limit` and `reading`
    schedule: NoiseSchedule
    device: torch.device
    dtype: torch.dtype
    clip_skip: int
    identity: dict[str, str]  # part name -> digest of the weights, for content-addressed caches
    files: dict[str, Path]  # part name -> file, for metadata
    notes: tuple[Status | Warned, ...] = ()  # what was found out about the model while loading it

    @property
    def text_identity(self) -> str:
        """The identity of all text encoders together."""
        return " ".join(self.identity[part.name] for part in self.spec.text_parts)

    def reader(self, reading: Reading | None) -> Any:
        """The tokenizer, for another reading where one is given."""
        return self.tokenizer if reading is None else replace(self.tokenizer, reading=reading)


@dataclass(frozen=True)
class AdapterTarget:
    """A layer that an adapter may join: where it is, and the key under which it is saved."""

    part: str  # "unet" or the name of a text encoder
    key: str  # saved name without the tensor suffix, for example "lora_unet_mid_block_attentions_0_proj_in"
    module: nn.Module
    kind: TargetKind = "plain"
    used: bool = True  # whether the model's output depends on the layer; kohya's files hold adapters of the others too


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

    def enable_checkpointing(self, model: Model, every: int = 1) -> None:
        """Recompute activations in the backward pass instead of keeping them, in every so many of the image network's blocks."""
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

    def encode_text(self, model: Model, captions: list[str], reading: Reading | None = None) -> Conditioning:
        """One batch of texts; `reading` takes the place of the model's own, for prompts."""
        ...

    def predict(self, model: Model, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The model's output for noisy latents (B, C, h, w) and timesteps (B,), float32, of the shape of `noisy`.

        A family that knows picture sizes needs `sizes` in the conditioning.
        """
        ...

    def adapter_targets(self, model: Model) -> list[AdapterTarget]:
        """The layers that an adapter can train, in saving order; `kind` tells those of a plain LoRA from the others."""
        ...
