"""Nodes that go between a dataset and Train LoRA, each with one kind of further settings."""

from __future__ import annotations

from typing import Any

from ..trainer.config import CaptionSection, DatasetSection
from .dataset import BASIC_CAPTIONS
from .widgets import Widgets, optional_inputs

DATASET = ("LF_DATASET", {"tooltip": "The dataset whose settings are changed: Dataset Folder, Demo Base, or another node of this kind."})


class Captions:
    """How captions vary from use to use."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "How captions vary: a trigger word before each, tags or whole captions left out now and then, wildcards. "
        "Goes between a dataset and Train LoRA."
    )
    SEARCH_ALIASES = ["caption", "tags", "trigger word", "dropout", "wildcards", "prefix"]
    RETURN_TYPES = ("LF_DATASET",)
    RETURN_NAMES = ("dataset",)
    OUTPUT_TOOLTIPS = ("The dataset with these caption settings.",)
    FUNCTION = "execute"
    WIDGETS = Widgets(CaptionSection, skip=BASIC_CAPTIONS)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"dataset": DATASET}, "optional": optional_inputs(cls.WIDGETS)}

    def execute(self, dataset: DatasetSection, **values: Any) -> tuple[DatasetSection]:
        kept = dataset.captions.model_dump(include={*BASIC_CAPTIONS, "extensions"})
        return (dataset.model_copy(update={"captions": self.WIDGETS.build(values, **kept)}),)
