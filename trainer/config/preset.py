"""Presets: settings with their reasons, read from presets/*.yaml and laid between the defaults and the user's own values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError

FOLDER = Path(__file__).parent / "presets"
LANGUAGES = ("en", "zh")
Text = Mapping[str, str]  # language code -> text
FamilyOf = Callable[[Mapping[str, Any]], str]  # the name of the model family that a configuration's `base` section leads to

# A special setting gives way when a higher layer sets the general one and not the special one: whoever writes
# `optimizer.lr` over a preset means the whole learning rate, and an alpha was chosen for its rank.
_SPECIAL = {
    "optimizer.unet_lr": "optimizer.lr",
    "optimizer.text_encoder_lr": "optimizer.lr",
    "optimizer.text_encoder_2_lr": "optimizer.lr",
    "method.alpha": "method.rank",
}


@dataclass(frozen=True)
class Entry:
    """One setting of a preset. `same_as_default` marks a value that is there to say so, or to win over an earlier preset."""

    setting: str  # section.field
    value: Any
    why: Text
    same_as_default: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The setting as nested sections, as YAML has them."""
        value = self.value
        for key in reversed(self.setting.split(".")):
            value = {key: value}
        return value


@dataclass(frozen=True)
class Preset:
    """Settings for one purpose or one size of memory; a family's own part stands over the common one."""

    name: str
    title: Text
    description: Text
    common: tuple[Entry, ...]
    families: Mapping[str, tuple[Entry, ...]]

    def entries(self, family: str | None) -> tuple[Entry, ...]:
        """What the preset sets for a family; without one, or for one without a part, only what holds for all."""
        found = {entry.setting: entry for entry in (*self.common, *self.families.get(family or "", ()))}
        return tuple(found.values())


@cache
def presets() -> Mapping[str, Preset]:
    """All presets by name; numbers in names sort as numbers."""
    paths = sorted(FOLDER.glob("*.yaml"), key=lambda path: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.stem)])
    return {path.stem: _read(path) for path in paths}


def find_presets(names: Iterable[Any]) -> list[Preset]:
    """The presets of these names; ConfigError lists every unknown one."""
    known, problems, found = presets(), [], []
    for name in names:
        if isinstance(name, str) and name in known:
            found.append(known[name])
        else:
            near = difflib.get_close_matches(str(name), known, n=1)
            problems.append(f"presets: {name!r} is unknown; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"))
    if problems:
        raise ConfigError(problems)
    return found


def given_family(values: Mapping[str, Any]) -> str:
    """The family that the values themselves name; ConfigError where they leave it to the checkpoint's header."""
    base = values.get("base")
    name = base.get("family", "auto") if isinstance(base, Mapping) else "auto"
    if name == "auto":
        raise ConfigError("base.family: presets have a part per model family; name it here, or read the file with trainer.load_config")
    return str(name)


def expand(values: Mapping[str, Any], names: Iterable[str] = (), family_of: FamilyOf = given_family) -> dict[str, Any]:
    """`values` over the presets of their `presets` list and of `names`, in this order; `from_presets` records which they were."""
    own = dict(values)
    listed = own.pop("presets", None) or []
    chosen = find_presets([*([listed] if isinstance(listed, str) else listed), *names])
    if not chosen:
        return own
    family = family_of(own) if any(preset.families for preset in chosen) else None
    result: dict[str, Any] = {}
    for preset in chosen:
        for entry in preset.entries(family):
            result = lay_over(result, entry.as_dict())
    recorded = own.pop("from_presets", None) or []
    result = lay_over(result, own)
    return result | {"from_presets": list(dict.fromkeys([*recorded, *(preset.name for preset in chosen)]))}


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Section by section, what `above` sets replaces what `below` sets; neither is changed."""
    gone = {special for special, general in _SPECIAL.items() if _has(above, general)}
    kept = {
        name: {key: value for key, value in section.items() if f"{name}.{key}" not in gone} if isinstance(section, Mapping) else section
        for name, section in below.items()
    }
    return merged(kept, above)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings with the values of `above` where both have one."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _has(values: Mapping[str, Any], setting: str) -> bool:
    section, _, field = setting.partition(".")
    inner = values.get(section)
    return isinstance(inner, Mapping) and field in inner


def _read(path: Path) -> Preset:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Preset(
        name=path.stem,
        title=values["title"],
        description=values["description"],
        common=_entries(values.get("settings", {})),
        families={family: _entries(settings) for family, settings in values.get("families", {}).items()},
    )


def _entries(settings: Mapping[str, Any]) -> tuple[Entry, ...]:
    return tuple(Entry(setting=name, **item) for name, item in settings.items())
