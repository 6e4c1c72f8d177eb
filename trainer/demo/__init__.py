"""The embedded base model and its small dataset of one concept that the base has never seen."""

from __future__ import annotations

from pathlib import Path


def base_folder() -> Path:
    """The demo base: a tiny, trained text-to-image model as a diffusers folder, for pictures of 64x64."""
    return Path(__file__).parent / "base"


def dataset_folder() -> Path:
    """The parent of the training pictures' N_concept folder."""
    return Path(__file__).parent / "dataset"


def heldout_folder() -> Path:
    """Pictures of the concept that are never trained on."""
    return Path(__file__).parent / "heldout"
