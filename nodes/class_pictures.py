"""The node that draws regularisation pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..trainer.class_pictures import draw_class_set
from ..trainer.config import BaseSection, DatasetSection, FolderSection, SaveSection
from . import host
from .bridge import NodeDisplay, run_beside
from .dataset_options import DATASET, DatasetOption
from .fingerprint import fingerprint, named
from .sampling import PRECISION, SAMPLE, picture_inputs
from .widgets import Input, Widgets

FOLDER_HELP = (
    "Folder in output/lora_furnace/regularization, with a folder inside for each set of settings. "
    "Pictures that it holds are not drawn again."
)


class DrawRegularization(DatasetOption):
    """Pictures of the class in general, as the base model draws them."""

    DESCRIPTION = (
        "Draws pictures of the class in general (cats, where the dataset shows one cat) with the base model and adds them as "
        "regularisation pictures, so that the LoRA changes only its subject. Goes between a dataset and Train LoRA; "
        "every picture is saved at once: after Cancel, queue the same again to go on."
    )
    SEARCH_ALIASES = ["regularization", "regularisation", "class images", "prior preservation", "generate class images", "dreambooth"]
    OUTPUT_TOOLTIPS = ("The dataset with the regularisation pictures.",)
    NAME = Widgets(SaveSection, only=("name",), names={"name": "folder_name"})

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        base = ("LF_BASE", {"tooltip": "The model that draws: the one that is trained on, Base Model or Demo Base."})
        count = {"default": 200, "min": 1, "max": 10000, "tooltip": "How many; at least as many as there are training pictures."}
        inputs = picture_inputs(512)
        kind, options = inputs.pop("prompts")
        classes = "What the class is, without the trigger word, such as: a photo of a cat. Several, one a line, take turns."
        required: dict[str, Input] = {
            "dataset": DATASET,
            "base": base,
            "prompts": (kind, options | {"tooltip": classes}),
            "count": ("INT", count),
            "folder_name": ("STRING", {"default": "class_pictures", "tooltip": FOLDER_HELP}),
            **inputs,
        }
        return {"required": required, "optional": PRECISION.inputs(), "hidden": {"node_id": "UNIQUE_ID"}}

    @classmethod
    def IS_CHANGED(cls, folder_name: str | None = None, **_: Any) -> str:
        """A picture that was thrown away is drawn again, and an edited caption is noticed."""
        return fingerprint(named(_folder, folder_name))

    def execute(
        self, dataset: DatasetSection, base: BaseSection, count: int, folder_name: str, node_id: str = "", **values: Any
    ) -> tuple[DatasetSection]:
        sample, options, size = SAMPLE.build(values), PRECISION.values(values), (values["width"], values["height"])
        root = _folder(self.NAME.build({"folder_name": folder_name}).name)
        folder = run_beside(
            lambda listen, stop: draw_class_set(base, sample, size, root, count, listen=listen, stop=stop, **options),
            NodeDisplay(node_id),
        )
        more = FolderSection(path=str(folder), regularization=True)
        return (dataset.model_copy(update={"folders": (*dataset.folders, more)}),)


def _folder(name: str) -> Path:
    return host.own_folder("regularization") / name
