"""Reading a job's configuration from whatever holds one, with the model family that presets need to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .config import TrainConfig, from_dict
from .config.io import apply_overrides, json_text, parse_mapping, read_mapping, yaml_text
from .config.preset import Entry, Preset, find_presets, merged
from .errors import ConfigError
from .files import from_home, write_text
from .places import run_dir_of


def load_config(path: str | Path, overrides: Iterable[str] = (), presets: Iterable[str] = ()) -> TrainConfig:
    """The configuration in a YAML or JSON file, or in the metadata of a LoRA that was trained here.

    `overrides` are texts such as `train.steps=100`; `presets` are laid below the file's values, after the file's own list.
    """
    return from_dict(apply_overrides(_values_in(Path(path)), overrides), presets, family_of)


def run_dir_in(path: str | Path) -> Path:
    """The folder of the run that such a file describes. The checkpoint may be gone: no preset's part for a family says where runs lie."""
    return run_dir_of(from_dict(_values_in(Path(path)), family_of=lambda _: ""))


def save_config(config: TrainConfig, path: Path, *, full: bool = False) -> None:
    """Write a configuration; only what differs from the defaults unless `full`. See `save_values`."""
    save_values(config.as_dict(full=full), path)


def save_values(values: Mapping[str, Any], path: Path) -> None:
    """Write a configuration's values as YAML or JSON, by the file's ending; ConfigError for any other."""
    writers = {".yaml": yaml_text, ".yml": yaml_text, ".json": json_text}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise ConfigError(f"{path} ends in {path.suffix!r}; a configuration is saved as {', '.join(writers)}")
    write_text(path, write(values))


def _values_in(path: Path) -> dict[str, Any]:
    return recorded_values(path) if path.suffix.lower() in (".safetensors", ".sft") else read_mapping(path)


def recorded_values(path: Path) -> dict[str, Any]:
    """The complete configuration in a LoRA's metadata; ConfigError where the file has none."""
    from .families.weights import open_weights
    from .metadata import CONFIG_ENTRY

    text = open_weights(path).metadata.get(CONFIG_ENTRY)
    if text is None:
        raise ConfigError(f"{path} has no configuration in its metadata; only files that were trained here have one ({CONFIG_ENTRY})")
    return parse_mapping(text, f"the metadata of {path}", json_only=True)


def family_of(values: Mapping[str, Any]) -> str:
    """The family of a configuration's base model: as named, or read from the checkpoint's header."""
    from .families import FAMILIES, find_family

    base = values.get("base")
    base = base if isinstance(base, Mapping) else {}
    wanted, checkpoint = str(base.get("family", "auto")), base.get("checkpoint")
    if wanted in FAMILIES:
        return wanted
    if wanted == "auto" and not (isinstance(checkpoint, str) and from_home(checkpoint).exists()):
        raise ConfigError(
            f"base.checkpoint: {checkpoint!r} does not exist, and the presets need its model family; "
            f"correct the path, or set base.family to one of: {', '.join(FAMILIES)}"
        )
    return find_family(str(checkpoint), wanted, FAMILIES).spec.name


def preset_effects(config: TrainConfig) -> list[tuple[Preset, list[Entry], list[Entry]]]:
    """Of each preset that a configuration records: the entries that hold in it, and those that something above replaced."""
    if not config.from_presets:
        return []
    values = config.as_dict()
    family, result = family_of(values), []
    for preset in find_presets(config.from_presets):
        held, replaced = [], []
        for entry in preset.entries(family):
            same = from_dict(merged(values, entry.as_dict())) == config
            (held if same else replaced).append(entry)
        result.append((preset, held, replaced))
    return result
