"""kohya's settings to ours, with a list of everything that did not come along as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..choices import CHOICES
from ..config import TrainConfig, from_dict
from ..config.io import is_setting
from ..errors import ConfigError
from . import values as to
from .absent import NO_COUNTERPART, NOT_NEEDED, SECRETS
from .imported import Imported
from .names import ALIASES, DATASET_DEFAULTS, FOLDER_ROWS, ROWS, TRAINING_DEFAULTS, Row
from .read import Options
from .together import finish, folders, together

_LOST = {name: sentence for sentence, names in NO_COUNTERPART.items() for name in names}
_NEEDLESS = {name: sentence for sentence, names in NOT_NEEDED.items() for name in names}
_WHOLE = {"pretrained_model_name_or_path", "network_module", "network_dim", "learning_rate", "train_data_dir"}  # mark a whole job

_SECTIONS = [field.alias or name for name, field in TrainConfig.model_fields.items()]


def convert(options: Options) -> Imported:
    """Every setting ends up in the values or in one of the lists. The values are valid, but for what is `missing`."""
    result = Imported(different=list(options.notes))
    subsets = [_named(subset) for subset in options.subsets or ()]
    given = _named(options.values) | _shared(subsets, result)
    if not options.window:
        _add_defaults(given, bool(subsets), result)
    folders(given, subsets, result)
    together(given, options, result)
    for name, value in given.items():
        _one(name, value, result)
    finish(result)
    result.values = {name: result.values[name] for name in _SECTIONS if name in result.values}
    _check(result)
    return result


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, under one name for each thing; where a file has both names, the usual one counts."""
    present = {name: value for name, value in values.items() if to.is_set(value)}
    return {ALIASES[name]: value for name, value in present.items() if name in ALIASES} | {
        name: value for name, value in present.items() if name not in ALIASES
    }


def _shared(subsets: list[dict[str, Any]], result: Imported) -> dict[str, Any]:
    """What folders say about things that are one setting for the whole job here."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for subset in subsets for name in subset if name not in FOLDER_ROWS):
        said = [subset.get(name) for subset in subsets]
        found[name] = next(value for value in said if value is not None)
        if any(value != found[name] for value in said):
            result.different.append(f"{name}: differs between folders; it is one setting here, and {found[name]!r} is taken")
    return found


def _add_defaults(given: dict[str, Any], described: bool, result: Imported) -> None:
    """A script's file leaves out what equals the script's defaults, and those are not ours."""
    whole = bool(_WHOLE & set(given))
    defaults = (DATASET_DEFAULTS if described or whole else {}) | (TRAINING_DEFAULTS if whole else {})
    added = {name: value for name, value in defaults.items() if name not in given}
    if "max_train_epochs" in given:
        added.pop("max_train_steps", None)
    given.update(added)
    if added:
        result.different.append(
            "not in the file, so kohya's defaults are taken: " + ", ".join(f"{name} {value}" for name, value in added.items())
        )


def _one(name: str, value: Any, result: Imported) -> None:
    row = ROWS.get(name)
    said = name if name in SECRETS else f"{name} = {value!r}"
    if row is not None:
        _put(row, name, value, said, result)
    elif name not in _LOST and name not in _NEEDLESS:
        result.unknown.append(said)
    elif not to.is_off(value):
        target, sentences = (result.lost, _LOST) if name in _LOST else (result.needless, _NEEDLESS)
        target.append(f"{said}: {sentences[name]}")


def _put(row: Row, name: str, value: Any, said: str, result: Imported) -> None:
    try:
        converted = row.convert(value)
    except to.NoCounterpart as error:
        result.lost.append(f"{said}: is not there; {error}")
        return
    except (ValueError, TypeError) as error:
        result.unknown.append(f"{said}: {error}")
        return
    if not is_setting(row.target):
        result.lost += [] if to.is_off(value) else [f"{said}: is not there yet"]
    elif converted is not to.LEAVE and row.target in CHOICES and converted not in CHOICES[row.target]:
        result.lost.append(f"{said}: is not there; {row.target} can be {', '.join(CHOICES[row.target])}")
    else:
        result.taken.append(name)
        if converted is not to.LEAVE:
            result.put(row.target, converted)
            result.different += [f"{name}: {row.note}"] if row.note and not to.is_off(converted) else []


def _check(result: Imported) -> None:
    """A value that our limits refuse is taken out and named; what is required and not there is listed."""
    for setting in ("base.checkpoint", "dataset.folders"):
        if not result.get(setting):
            result.missing.append(setting)
    while True:
        try:
            from_dict(result.complete())
            return
        except ConfigError as error:
            removed = [problem for problem in error.problems if result.remove(problem.split(":")[0]) is not None]
            if not removed:
                raise
            result.unknown += removed
