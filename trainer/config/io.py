"""YAML, JSON and plain dicts to `TrainConfig` and back; every mistake is reported at once, by its path."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from ..files import read_text
from .job import TrainConfig
from .preset import FamilyOf, expand, given_family


def load(path: str | Path, overrides: Iterable[str] = (), presets: Iterable[str] = (), family_of: FamilyOf = given_family) -> TrainConfig:
    """Read a YAML or JSON file. `overrides` are texts such as `train.steps=100`, `presets` names laid below the file's values.

    Relative paths stay relative to the caller.
    """
    return from_dict(apply_overrides(read_mapping(path), overrides), presets, family_of)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The top-level mapping of a YAML or JSON file; ConfigError where it is none."""
    path = Path(path)
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from None
    return parse_mapping(text, f"configuration file {path}", json_only=path.suffix.lower() == ".json")


def parse_mapping(text: str, name: str, *, json_only: bool) -> dict[str, Any]:
    """The top-level mapping of a YAML or JSON text; ConfigError calls it `name`."""
    try:
        value = json.loads(text) if json_only else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ConfigError(f"{name} is not valid {'json' if json_only else 'yaml'}: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{name} should hold sections such as `base:` and `dataset:`, found {type(value).__name__}")
    return value


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `values` with each `a.b=c` set; c is read as YAML, list items are addressed by number."""
    result: dict[str, Any] = _plain(values)
    problems = []
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            problems.append(f"--set {text!r}: write it as section.field=value")
            continue
        try:
            _set(result, path.strip().split("."), yaml.safe_load(value) if value else None)
        except (TypeError, IndexError, ValueError, yaml.YAMLError) as error:
            problems.append(f"--set {text!r}: {error}")
    if problems:
        raise ConfigError(problems)
    return result


def _plain(value: Any) -> Any:
    """A copy in the terms of JSON: keys are texts, and so is what JSON does not have, such as YAML's dates."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _set(target: Any, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if isinstance(target, list):
            target = target[int(key)]
        elif isinstance(target, dict):
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
        else:
            break
    if isinstance(target, list):
        target[int(keys[-1])] = value
    elif isinstance(target, dict):
        target[keys[-1]] = value
    else:
        raise TypeError(f"{keys[-1]!r} cannot be set inside the value {target!r}")


def from_dict(values: Mapping[str, Any], presets: Iterable[str] = (), family_of: FamilyOf = given_family) -> TrainConfig:
    """A checked configuration; ConfigError lists every wrong field with its path, value and the nearest valid name.

    A list `presets` among the values, and the names given here, are laid below the values. `family_of` says which model
    family's part of a preset holds.
    """
    try:
        return TrainConfig.model_validate(expand(values, presets, family_of))
    except ValidationError as error:
        items = error.errors()
        # A list whose only items are wrong is also reported as too short; the items' own errors say it better.
        items = [item for item in items if item["type"] != "too_short" or not _has_deeper(item["loc"], items)]
        raise ConfigError([_sentence(item) for item in items]) from None


def to_yaml(config: TrainConfig, *, full: bool = True) -> str:
    """The configuration as YAML text that `load` reads back to an equal one; only what differs from the defaults unless `full`."""
    return yaml_text(config.as_dict(full=full))


def to_json(config: TrainConfig, *, full: bool = True) -> str:
    """The same as JSON text."""
    return json_text(config.as_dict(full=full))


def yaml_text(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def json_text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def is_setting(path: str) -> bool:
    """Whether there is a setting of this name, such as `dataset.folders.0.path`."""
    location: list[Any] = [int(key) if key.isdigit() else key for key in path.split(".")]
    return location[-1] in _field_names(location[:-1])


def _has_deeper(location: tuple[Any, ...], items: list[Any]) -> bool:
    return any(len(item["loc"]) > len(location) and item["loc"][: len(location)] == location for item in items)


def _sentence(item: Any) -> str:
    location = [key for key in item["loc"] if not _is_tag(key)]
    path = ".".join(str(key) for key in location) or "the configuration"
    if item["type"] == "extra_forbidden":
        known = _field_names(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"{path}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{path}: missing; {_help(location)}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower() + message[1:]} (got {item['input']!r})"


def _is_tag(key: Any) -> bool:
    """pydantic puts the names of validators and union tags into a location; fields are lower-case words or numbers."""
    return isinstance(key, str) and ("[" in key or "(" in key)


def _section_at(location: Iterable[Any]) -> type[BaseModel] | None:
    """The section class that a path of field names and list positions leads to."""
    current: Any = TrainConfig
    for key in location:
        if isinstance(key, int):
            continue
        field = next((f for name, f in current.model_fields.items() if key in (name, f.alias)), None)
        current = _model_in(field.annotation) if field is not None else None
        if current is None:
            return None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)


def _field_names(location: list[Any]) -> list[str]:
    section = _section_at(location)
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _help(location: list[Any]) -> str:
    section = _section_at(location[:-1])
    field = section.model_fields.get(location[-1]) if section else None
    return (field.description if field and field.description else "it must be given").rstrip(".")
