"""Reading kohya's files: sd-scripts' TOML, its dataset descriptions, and the JSON that the kohya_ss window saves."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import from_home, read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Only the window writes these.
WINDOW_NAMES = {"lora_type", "max_resolution", "epoch", "lr_warmup", "optimizer", "model_list", "noise_offset_type"}


@dataclass
class Options:
    """Settings by name in lower case. `subsets` are the folders of a dataset description, with what they inherit."""

    values: dict[str, Any] = field(default_factory=dict)
    subsets: list[dict[str, Any]] | None = None
    folder: Path = Path()  # where the file lies; names of further files may be meant from there
    window: bool = False  # saved by the kohya_ss window
    notes: list[str] = field(default_factory=list)


def read_files(paths: Iterable[Path]) -> Options:
    """Several files are one job: what a later one says wins. ConfigError where a file is none of these."""
    result = Options()
    for path in paths:
        _join(result, _read(path))
    named = result.values.pop("dataset_config", None)
    if named:
        found = beside(str(named), result.folder)
        if found is None:
            result.notes.append(f"dataset_config: {named} was not found; give it as a second file")
        else:
            _join(result, _read(found))
    return result


def beside(name: str, folder: Path) -> Path | None:
    """A file that another one names: from the working folder, else from where that one lies."""
    paths = from_home(name), folder / name
    # The name may be any text, such as a long prompt, and Path.is_file raises an error for some.
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113


def _read(path: Path) -> Options:
    try:
        text = read_text(path)
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise ConfigError(f"{path} is not valid {kind}: {error}{_backslash_hint(text)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} should hold settings with names, found {type(values).__name__}")
    datasets = values.pop("datasets", None)
    if datasets is not None:
        return Options(subsets=list(_subsets(values.pop("general", {}), datasets, path)), values=_flat(values), folder=path.parent)
    flat = _flat(values)
    return Options(values=flat, folder=path.parent, window=path.suffix.lower() == ".json" and bool(WINDOW_NAMES & set(flat)))


def _backslash_hint(text: str) -> str:
    return "; write Windows paths in 'single quotes' or with /" if re.search(r'"[A-Za-z]:\\', text) else ""


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The scripts ignore the names of sections."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= {str(key).lower(): item for key, item in value.items()} if isinstance(value, Mapping) else {name.lower(): value}
    return result


def _subsets(general: Any, datasets: Any, path: Path) -> Iterable[dict[str, Any]]:
    """Each folder with everything that its dataset and the general part say."""
    if not isinstance(general, Mapping):
        raise ConfigError(f"{path}: `general` should be a table, written [general]")
    for dataset in datasets if isinstance(datasets, list) else [datasets]:
        if not isinstance(dataset, Mapping):
            raise ConfigError(f"{path}: `datasets` should be a list of tables, written [[datasets]]")
        own = {name: value for name, value in dataset.items() if name != "subsets"}
        subsets = dataset.get("subsets", [])
        if not isinstance(subsets, list) or not all(isinstance(subset, Mapping) for subset in subsets):
            raise ConfigError(f"{path}: `subsets` should be a list of tables, written [[datasets.subsets]]")
        for subset in subsets:
            yield {str(name).lower(): value for name, value in {**general, **own, **subset}.items()}


def _join(into: Options, other: Options) -> None:
    into.values |= other.values
    into.window = into.window or other.window
    if other.subsets is not None:
        into.subsets = other.subsets
    if into.folder == Path():
        into.folder = other.folder
