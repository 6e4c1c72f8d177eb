"""Nodes that go between a dataset and Train LoRA, each with one kind of further settings."""

from __future__ import annotations

from typing import Any

from ..trainer.config import AugmentSection, CaptionSection, DatasetSection, FolderSection
from . import host
from .dataset import BASIC_CAPTIONS, folder_choices, given_folder
from .fingerprint import fingerprint, named
from .widgets import Widgets, optional_inputs

DATASET = ("LF_DATASET", {"tooltip": "The dataset whose settings are changed: Dataset Folder, Demo Base, or another node of this kind."})

NO_MASKS = "(none)"


class DatasetOption:
    """A node that takes a dataset and gives it on with other settings."""

    CATEGORY = "LoRA Furnace"
    RETURN_TYPES = ("LF_DATASET",)
    RETURN_NAMES = ("dataset",)
    FUNCTION = "execute"


class Captions(DatasetOption):
    """How captions vary from use to use."""

    DESCRIPTION = (
        "How captions vary: a trigger word before each, tags or whole captions left out now and then, wildcards. "
        "Goes between a dataset and Train LoRA."
    )
    SEARCH_ALIASES = ["caption", "tags", "trigger word", "dropout", "wildcards", "prefix"]
    OUTPUT_TOOLTIPS = ("The dataset with these caption settings.",)
    WIDGETS = Widgets(CaptionSection, skip=(*BASIC_CAPTIONS, "extensions"))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"dataset": DATASET}, "optional": optional_inputs(cls.WIDGETS)}

    def execute(self, dataset: DatasetSection, **values: Any) -> tuple[DatasetSection]:
        kept = dataset.captions.model_dump(include={*BASIC_CAPTIONS, "extensions"})
        return (dataset.model_copy(update={"captions": self.WIDGETS.build(values, **kept)}),)


class Augmentation(DatasetOption):
    """Pictures changed a little at each use."""

    DESCRIPTION = (
        "Pictures mirrored, cropped, turned or coloured a little differently at each use, for datasets with few of them. "
        "Goes between a dataset and Train LoRA."
    )
    SEARCH_ALIASES = ["augmentation", "flip", "mirror", "rotate", "random crop", "color jitter"]
    OUTPUT_TOOLTIPS = ("The dataset with this augmentation.",)
    WIDGETS = Widgets(AugmentSection)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"dataset": DATASET}, "optional": optional_inputs(cls.WIDGETS)}

    def execute(self, dataset: DatasetSection, **values: Any) -> tuple[DatasetSection]:
        return (dataset.model_copy(update={"augment": self.WIDGETS.build(values)}),)


class LossMasks(DatasetOption):
    """Which parts of the pictures are learned."""

    DESCRIPTION = (
        "Masks say which parts of the pictures are learned: a folder of black and white pictures with the same names, white is learned; "
        "or the pictures' own transparency. Goes between a dataset and Train LoRA."
    )
    SEARCH_ALIASES = ["mask", "masked loss", "alpha mask", "masked training"]
    OUTPUT_TOOLTIPS = ("The dataset with masks.",)
    ALPHA = Widgets(DatasetSection, only=("alpha_mask",))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        masks_help = (
            "Folder of masks, below ComfyUI's input or datasets folder. It counts for every folder of the dataset that has no masks yet."
        )
        masks = ([NO_MASKS, *host.picture_folders()], {"default": NO_MASKS, "tooltip": masks_help})
        alpha = {name: (kind, options | {"advanced": False}) for name, (kind, options) in cls.ALPHA.inputs().items()}
        return {"required": {"dataset": DATASET}, "optional": {"masks": masks, **alpha}}

    @classmethod
    def IS_CHANGED(cls, masks: str | None = NO_MASKS, **_: Any) -> str:
        return fingerprint(named(host.picture_folder, masks))

    def execute(self, dataset: DatasetSection, masks: str = NO_MASKS, **values: Any) -> tuple[DatasetSection]:
        path = None if masks == NO_MASKS else str(host.picture_folder(masks))
        folders = tuple(
            folder if folder.masks or folder.regularization else folder.model_copy(update={"masks": path}) for folder in dataset.folders
        )
        return (dataset.model_copy(update={"folders": folders, **self.ALPHA.values(values)}),)


class RegularizationFolder(DatasetOption):
    """Pictures of the class in general beside those of the subject."""

    DESCRIPTION = (
        "Adds a folder of regularisation pictures: the class in general (other cats, beside those of one cat), so that the LoRA changes "
        "only its subject. Goes between a dataset and Train LoRA; an epoch has as many of them as pictures of the dataset."
    )
    SEARCH_ALIASES = ["regularization", "regularisation", "class images", "prior preservation", "dreambooth"]
    OUTPUT_TOOLTIPS = ("The dataset with the regularisation pictures.",)
    FOLDER = Widgets(FolderSection, only=("repeats", "class_words"))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        folder_help = "A folder of pictures of the class, or the parent of N_class folders, below ComfyUI's input or datasets folder."
        required = {"dataset": DATASET, "folder": (folder_choices(), {"tooltip": folder_help})}
        return {"required": required, "optional": optional_inputs(cls.FOLDER)}

    @classmethod
    def IS_CHANGED(cls, folder: str | None = None, **_: Any) -> str:
        return fingerprint(named(host.picture_folder, folder))

    def execute(self, dataset: DatasetSection, folder: str, **values: Any) -> tuple[DatasetSection]:
        more = self.FOLDER.build(values, path=str(given_folder(folder)), regularization=True)
        return (dataset.model_copy(update={"folders": (*dataset.folders, more)}),)
