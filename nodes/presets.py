"""The node that lays a preset over settings."""

from __future__ import annotations

from typing import Any

from ..trainer.config import AdapterSection, BaseSection, DatasetSection, TrainConfig, from_dict
from ..trainer.config.io import apply_overrides
from ..trainer.config.preset import LANGUAGES, Preset, merged, presets
from ..trainer.reading import family_of
from .links import config_of, links_of
from .settings import Training


class LoadPreset:
    """A preset laid over what comes in."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Settings by purpose or by graphics memory, each with its reason. What comes in at the left goes out at the right with the "
        "preset's values; chain several, the later one wins."
    )
    SEARCH_ALIASES = ["preset", "vram", "recommended settings", "anime", "character", "style", "low memory"]
    RETURN_TYPES = ("LF_BASE", "LF_DATASET", "LF_METHOD", "LF_TRAINING", "STRING")
    RETURN_NAMES = ("base", "dataset", "lora", "training", "notes")
    OUTPUT_TOOLTIPS = (
        "The base model with the preset's values, for Train LoRA.",
        "The dataset with the preset's values, for Train LoRA.",
        "The LoRA settings with the preset's values, for Train LoRA.",
        "The training settings with the preset's values, for Train LoRA.",
        "Every value with its reason, for Preview Any.",
    )
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        changes_help = "Your own values, which win over the preset: section.field=value, one a line, such as method.rank=16."
        return {
            "required": {
                "base": ("LF_BASE", {"tooltip": "The base model. Its family decides which part of the preset holds."}),
                "dataset": ("LF_DATASET", {"tooltip": "The dataset."}),
                "preset": (_labels(), {"tooltip": "What the training is for, or the size of the graphics memory."}),
            },
            "optional": {
                "lora": ("LF_METHOD", {"tooltip": "LoRA Settings or an earlier preset; their defaults if nothing is connected."}),
                "training": ("LF_TRAINING", {"tooltip": "Training Settings or an earlier preset; their defaults if nothing is connected."}),
                "changes": ("STRING", {"default": "", "multiline": True, "tooltip": changes_help}),
                "language": (list(LANGUAGES), {"default": LANGUAGES[0], "tooltip": "Language of the notes."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, preset: str) -> bool | str:
        """The name counts, not the title behind it, which may change."""
        return _name(preset) in presets() or f"preset {preset!r} is unknown"

    def execute(
        self,
        base: BaseSection,
        dataset: DatasetSection,
        preset: str,
        lora: AdapterSection | None = None,
        training: Training | None = None,
        changes: str = "",
        language: str = LANGUAGES[0],
    ) -> tuple[Any, ...]:
        chosen = presets()[_name(preset)]
        values = config_of(base, dataset, lora, training).as_dict()
        family = family_of(values)
        for entry in chosen.entries(family):
            values = merged(values, entry.as_dict())
        values["from_presets"] = list(dict.fromkeys([*values["from_presets"], chosen.name]))
        config = from_dict(apply_overrides(values, [line for line in changes.splitlines() if line.strip()]))
        return *links_of(config), notes(chosen, family, config, language)


def notes(preset: Preset, family: str, config: TrainConfig, language: str) -> str:
    """Title, description and each value with its reason; values that the configuration does not hold are marked."""
    lines = [f"{preset.title[language]}\n{preset.description[language]}"]
    for entry in preset.entries(family):
        held = from_dict(merged(config.as_dict(), entry.as_dict())) == config
        lines.append(f"{'' if held else '✗ '}{entry.setting} = {entry.value}\n    {entry.why[language]}")
    return "\n".join(lines)


def _labels() -> list[str]:
    return [f"{name} ({' · '.join(preset.title.values())})" for name, preset in presets().items()]


def _name(label: str) -> str:
    return label.partition(" ")[0]
