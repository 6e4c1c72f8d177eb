"""Nodes that save a whole configuration to a file and load one."""

from __future__ import annotations

import glob
import itertools
from pathlib import Path
from typing import Any

from ..trainer.config import AdapterSection, BaseSection, DatasetSection, SaveSection, to_json, to_yaml
from ..trainer.files import write_text
from . import host
from .fingerprint import fingerprint, named
from .links import config_of, links_of
from .registered import load_registered
from .settings import Training
from .train import TrainLora, run_name

NOTHING = "(no configuration yet: save one, or put a .yaml file into ComfyUI's input folder, then press R)"
FORMATS = {"yaml": to_yaml, "json": to_json}
SETTINGS_HELP = "their defaults if nothing is connected."


class SaveConfiguration:
    """Writes a job to a file."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "Saves everything that is connected as one file in output/lora_furnace/configs, for Load Configuration and for the command "
        "line. A file of this name with other contents is kept: the new one is called name_2."
    )
    SEARCH_ALIASES = ["save config", "save preset", "export settings", "yaml", "json"]
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("text",)
    OUTPUT_TOOLTIPS = ("The contents of the file, for Preview Any.",)
    FUNCTION = "execute"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        full_help = "Write every setting, not only those that differ from the defaults."
        return {
            "required": {
                "base": ("LF_BASE", {"tooltip": "What the LoRA is trained on."}),
                "dataset": ("LF_DATASET", {"tooltip": "The pictures and captions."}),
                "file_name": ("STRING", {"default": "my_config", "tooltip": "Name of the file, without an ending."}),
                **TrainLora.NAME.inputs(),
            },
            "optional": {
                "lora": ("LF_METHOD", {"tooltip": f"LoRA Settings; {SETTINGS_HELP}"}),
                "training": ("LF_TRAINING", {"tooltip": f"Training Settings; {SETTINGS_HELP}"}),
                "format": (list(FORMATS), {"default": "yaml", "tooltip": "YAML is easier to read and edit, JSON is for other programs."}),
                "full": ("BOOLEAN", {"default": False, "tooltip": full_help}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, file_name: str | None = None, format: str | None = "yaml", **_: Any) -> str:
        """A file that was deleted or edited since is written again."""
        return fingerprint(named(_saved_as, file_name, format))

    def execute(
        self,
        base: BaseSection,
        dataset: DatasetSection,
        file_name: str,
        lora_name: str,
        lora: AdapterSection | None = None,
        training: Training | None = None,
        format: str = "yaml",
        full: bool = False,
        node_id: str = "",
    ) -> tuple[str]:
        config = config_of(base, dataset, lora, training)
        save = {"name": run_name(lora_name), "dir": str(host.lora_folder())}
        text = FORMATS[format](config.model_copy(update={"save": config.save.model_copy(update=save)}), full=full)
        path = _free_place(SaveSection(name=file_name).name, format, text)
        write_text(path, text)
        host.show_text(f"saved {path}", node_id)
        return (text,)


class LoadConfiguration:
    """Reads a job from a file."""

    CATEGORY = "LoRA Furnace"
    DESCRIPTION = (
        "A configuration saved by Save Configuration, left behind by a run, or put into ComfyUI's input folder. Models and pictures "
        "that it names must lie in ComfyUI's folders. Train LoRA chooses the name of the LoRA."
    )
    SEARCH_ALIASES = ["load config", "import settings", "yaml", "json", "kohya"]
    RETURN_TYPES = ("LF_BASE", "LF_DATASET", "LF_METHOD", "LF_TRAINING", "STRING")
    RETURN_NAMES = ("base", "dataset", "lora", "training", "lora_name")
    OUTPUT_TOOLTIPS = (
        "The base model, for Train LoRA.",
        "The pictures and captions, for Train LoRA.",
        "The LoRA settings, for Train LoRA.",
        "The training settings, for Train LoRA.",
        "The name of the LoRA in the file.",
    )
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = host.config_files() or [NOTHING]
        return {
            "required": {"config": (files, {"tooltip": "configs: saved ones; runs: of earlier trainings; input: ComfyUI's input folder."})}
        }

    @classmethod
    def IS_CHANGED(cls, config: str | None = None) -> str:
        return fingerprint(named(host.config_file, config))

    def execute(self, config: str) -> tuple[Any, ...]:
        if config == NOTHING:
            raise ValueError(f"config: there is no file yet; save one, or put a .yaml file into {host.config_roots()['input']} and press R")
        loaded = load_registered(host.config_file(config))
        return *links_of(loaded), loaded.save.name


def _saved_as(name: str, ending: str) -> list[Path]:
    """The files of this name and of those with a number behind it."""
    return sorted(host.config_roots()["configs"].glob(f"{glob.escape(name)}*.{ending}"))


def _free_place(name: str, ending: str, text: str) -> Path:
    """The file of this name if it is free or holds this text, else name_2, name_3 …"""
    folder = host.config_roots()["configs"]
    for number in itertools.count(1):
        path = folder / f"{name if number == 1 else f'{name}_{number}'}.{ending}"
        if not path.exists() or path.read_text(encoding="utf-8") == text:
            return path
    raise AssertionError("unreachable")
