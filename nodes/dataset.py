"""The node for a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..trainer.config import BucketSection, CacheSection, CaptionSection, DatasetSection, FolderSection
from . import host
from .fingerprint import fingerprint, named
from .widgets import Widgets, optional_inputs

BASIC_CAPTIONS = ("missing", "shuffle", "keep_tokens", "separator")  # the others are on the Captions node
NOTHING = "(no pictures yet: put a folder of pictures into ComfyUI's input folder, then press R)"


def folder_choices() -> list[str]:
    """The folders of pictures that ComfyUI has, or one entry that says how to get some."""
    return host.picture_folders() or [NOTHING]


def given_folder(folder: str) -> Path:
    """The path of a chosen folder; ValueError where there is none yet."""
    if folder == NOTHING:
        roots = " or ".join(str(root) for root in host.picture_roots().values())
        raise ValueError(f"folder: there are no pictures yet; put a folder of pictures into {roots} and press R in the browser")
    return host.picture_folder(folder)


class Dataset:
    """Pictures and captions of one folder, and how they are prepared."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "A folder of pictures with captions (cat.png beside cat.txt), from ComfyUI's input or datasets folder. "
        "Sub-folders named N_concept, such as 10_sks cat, are shown N times per epoch."
    )
    SEARCH_ALIASES = ["dataset", "training images", "captions", "image folder", "load images"]
    RETURN_TYPES = ("LF_DATASET",)
    RETURN_NAMES = ("dataset",)
    OUTPUT_TOOLTIPS = ("The dataset, for Train LoRA. An edited picture or caption is noticed at the next run.",)
    FUNCTION = "execute"
    FOLDER = Widgets(FolderSection, only=("repeats", "class_words"))
    PICTURES = Widgets(DatasetSection, only=("resolution", "batch_size", "background", "unreadable"))
    CAPTIONS = Widgets(
        CaptionSection, only=BASIC_CAPTIONS, names={"shuffle": "shuffle_tags", "missing": "missing_captions", "separator": "tag_separator"}
    )
    BUCKETS = Widgets(BucketSection, prefix="bucket_", names={"enabled": "buckets", "upscale": "upscale_small"})
    CACHE = Widgets(CacheSection, prefix="cache_", skip=("dir",))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        folder_help = "A folder of pictures, or the parent of N_concept folders, below ComfyUI's input or datasets folder."
        also_help = "A second dataset, whose folders are trained on too. The settings of this node hold for all of them."
        return {
            "required": {"folder": (folder_choices(), {"tooltip": folder_help})},
            "optional": {
                "also": ("LF_DATASET", {"tooltip": also_help}),
                **optional_inputs(cls.PICTURES, cls.FOLDER, cls.CAPTIONS, cls.BUCKETS, cls.CACHE),
            },
        }

    @classmethod
    def IS_CHANGED(cls, folder: str | None = None, **_: Any) -> str:
        return fingerprint(named(host.picture_folder, folder))

    def execute(self, folder: str, also: DatasetSection | None = None, **values: Any) -> tuple[DatasetSection]:
        own = self.FOLDER.build(values, path=str(given_folder(folder)))
        captions, buckets, cache = self.CAPTIONS.build(values), self.BUCKETS.build(values), self.CACHE.build(values)
        folders = (*(also.folders if also else ()), own)
        return (self.PICTURES.build(values, folders=folders, captions=captions, buckets=buckets, cache=cache),)
