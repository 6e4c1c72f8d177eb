"""The `base` section."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from ..files import from_home
from .section import Float, Int, Section, option


def _from_home(path: str) -> str:
    return str(from_home(path)) if path.startswith("~") else path


class LoraFile(Section):
    """A LoRA that becomes part of the model."""

    file: str = option(..., "A LoRA file.")
    strength: Float = option(1.0, "How strongly it counts.", ge=-100, le=100, step=0.05)

    @field_validator("file")
    @classmethod
    def _from_home(cls, file: str) -> str:
        return _from_home(file)


class BaseSection(Section):
    """The model that is trained on."""

    checkpoint: str = option(..., "A .safetensors or .ckpt file, or a diffusers folder.")
    family: str = option("auto", "Model family; auto reads it from the file's header.", advanced=True)
    vae: str | None = option(
        None, "A VAE file or folder used instead of the checkpoint's own; default <checkpoint>.vae.safetensors or .vae.pt, if there is one."
    )
    clip_skip: Int = option(1, "Which text-encoder layer to use, counted from the end: 1 for realistic models, 2 for anime.", ge=1, le=12)
    tokenizer: str | None = option(
        None, "Folder with the tokenizer's vocab.json and merges.txt, or tokenizer.json, if it is not beside the model.", advanced=True
    )
    prediction: Literal["auto", "epsilon", "v"] = option(
        "auto", "What the model predicts: the noise (epsilon) or the velocity (v). auto reads it from the file.", advanced=True
    )
    zero_terminal_snr: bool | None = option(
        None,
        "Whether the model was trained with noise alone at the last timestep (zero terminal SNR, v prediction only); "
        "default as the file says.",
        advanced=True,
    )
    loras: tuple[LoraFile, ...] = option((), "LoRA files merged into the model before training, each with `file` and `strength`.")

    @field_validator("checkpoint", "vae", "tokenizer")
    @classmethod
    def _from_home(cls, path: str | None) -> str | None:
        """`~` stands for the user's folder, wherever the path is used."""
        return path and _from_home(path)
