"""The node that finds training pictures which behave oddly."""

from __future__ import annotations

from typing import Any

from ..trainer.config import BaseSection, DatasetSection, SaveSection, TrainConfig, TrainSection
from ..trainer.evaluate.image_losses import measure_images
from . import host, pictures
from .bridge import NodeDisplay, run_beside
from .fingerprint import fingerprint, named
from .links import config_of, with_cache
from .widgets import Widgets

BASE_ALONE = "the base model alone"


class OddPictures:
    """Measures each training picture."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Measures each training picture's loss at fixed noise, with and without LoRA and caption, and names those that behave "
        "oddly: wrong captions, another subject or style, damaged or empty pictures."
    )
    SEARCH_ALIASES = ["outlier", "wrong caption", "dataset check", "bad pictures", "per image loss", "clean dataset"]
    RETURN_TYPES = ("STRING", "IMAGE", "STRING")
    RETURN_NAMES = ("table", "sheet", "names")
    OUTPUT_TOOLTIPS = (
        "The oddest pictures with their losses, and what is odd about them.",
        "The odd pictures with the reasons.",
        "The files of the odd pictures, one a line.",
    )
    FUNCTION = "execute"
    OUTPUT_NODE = True
    DEVICE = Widgets(TrainSection, only=("precision", "device"))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        lora = "A LoRA that was trained on these pictures; the base model alone finds wrong captions of things that it knows."
        return {
            "required": {
                "base": ("LF_BASE", {"tooltip": "What the LoRA is trained on: Base Model or Demo Base."}),
                "dataset": ("LF_DATASET", {"tooltip": "The pictures and captions: Dataset Folder or Demo Base."}),
                "lora_name": ([BASE_ALONE, *host.model_files("loras")], {"default": BASE_ALONE, "tooltip": lora}),
            },
            "optional": cls.DEVICE.inputs(),
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, lora_name: str | None = None, **_: Any) -> str:
        return fingerprint(named(host.model_path, "loras", lora_name))

    def execute(self, base: BaseSection, dataset: DatasetSection, lora_name: str, node_id: str = "", **values: Any) -> dict[str, Any]:
        config = _config(base, dataset, self.DEVICE.build(values))
        lora = None if lora_name == BASE_ALONE else host.model_path("loras", lora_name)
        report = run_beside(lambda listen, stop: measure_images(config, lora, listen=listen, stop=stop), NodeDisplay(node_id))
        assert report is not None, "a stopped measurement has raised ComfyUI's interrupt"
        text, sheet = "\n".join(report.lines()), report.sheet()
        host.show_text(text, node_id)
        names = "\n".join(str(image.path) for image in report.flagged)
        return {"ui": {"images": [host.save_preview(sheet)]}, "result": (text, pictures.to_tensor(sheet), names)}


def _config(base: BaseSection, dataset: DatasetSection, train: TrainSection) -> TrainConfig:
    """The job of Train LoRA with the same links."""
    save = SaveSection(dir=str(host.output_folder()))
    return config_of(base, with_cache(dataset), training={"train": train, "save": save})
