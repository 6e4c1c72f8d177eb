"""Nodes for the model that is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..trainer.config import BaseSection, DatasetSection, FolderSection
from ..trainer.demo import base_folder, dataset_folder, heldout_folder
from . import host
from .fingerprint import fingerprint, named
from .widgets import Widgets, optional_inputs

OWN_VAE = "the checkpoint's own"
DEMO_SIZE = 64  # pixels; the demo base was trained at this size
DEMO_BATCH = 8


class BaseModel:
    """A checkpoint as the base of a training."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = "Chooses the checkpoint that a LoRA is trained on. The file is read only when the training starts."
    SEARCH_ALIASES = ["checkpoint", "base model", "train on", "lora training model"]
    RETURN_TYPES = ("LF_BASE",)
    RETURN_NAMES = ("base",)
    OUTPUT_TOOLTIPS = ("The base model, for Train LoRA and the strength test.",)
    FUNCTION = "execute"
    WIDGETS = Widgets(BaseSection, skip=("vae", "tokenizer", "loras"))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        checkpoints, vaes = [*host.model_files("checkpoints"), *host.diffusers_folders()], host.model_files("vae")
        help = "A checkpoint from ComfyUI's models/checkpoints folders, or a diffusers folder from models/diffusers."
        vae_help = BaseSection.model_fields["vae"].description
        return {
            "required": {"checkpoint": (checkpoints, {"tooltip": help})},
            "optional": {"vae": ([OWN_VAE, *vaes], {"default": OWN_VAE, "tooltip": vae_help}), **optional_inputs(cls.WIDGETS)},
        }

    @classmethod
    def IS_CHANGED(cls, checkpoint: str | None = None, **_: Any) -> str:
        return fingerprint(named(_path, checkpoint))

    def execute(self, checkpoint: str, vae: str = OWN_VAE, **values: Any) -> tuple[BaseSection]:
        vae_path = None if vae == OWN_VAE else str(host.model_path("vae", vae))
        path = _path(checkpoint)
        tokenizer = None if path.is_dir() else host.tokenizer_folder()  # a diffusers folder has its own
        return (self.WIDGETS.build(values, checkpoint=str(path), vae=vae_path, tokenizer=tokenizer),)


def _path(checkpoint: str) -> Path:
    return host.diffusers_folders().get(checkpoint) or host.model_path("checkpoints", checkpoint)


class DemoBase:
    """The embedded base model and its dataset."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "A tiny text-to-image model that comes with this pack, and twelve pictures of a mascot called zibu which it has never seen. "
        "Trains on any machine within minutes, with nothing to download."
    )
    SEARCH_ALIASES = ["demo", "example", "tiny model", "test dataset", "zibu"]
    RETURN_TYPES = ("LF_BASE", "LF_DATASET", "LF_DATASET")
    RETURN_NAMES = ("base", "dataset", "held_out")
    OUTPUT_TOOLTIPS = (
        "The demo base model.",
        "Twelve pictures of zibu with their captions, 64x64 pixels.",
        "Four more pictures of zibu, to measure what the LoRA learns on pictures that it never sees.",
    )
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kind, options = Widgets(DatasetSection).inputs()["batch_size"]
        return {"required": {}, "optional": {"batch_size": (kind, options | {"default": DEMO_BATCH})}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> str:
        return fingerprint([base_folder(), dataset_folder(), heldout_folder()])

    def execute(self, batch_size: int = DEMO_BATCH) -> tuple[BaseSection, DatasetSection, DatasetSection]:
        trained, held_out = (
            DatasetSection(folders=(FolderSection(path=str(folder)),), resolution=(DEMO_SIZE, DEMO_SIZE), batch_size=batch_size)
            for folder in (dataset_folder(), heldout_folder())
        )
        return BaseSection(checkpoint=str(base_folder())), trained, held_out
