"""`presets [NAME …]`"""

from __future__ import annotations

import argparse
from typing import Any

HELP = "List the presets, or show the settings of some with the reason for each."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="presets to show; default: the list of all")
    parser.add_argument("--family", help="show only what holds for this model family")
    parser.add_argument("--language", default="en", choices=("en", "zh"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..config.preset import find_presets, presets
    from ..errors import ConfigError
    from ..families import FAMILIES

    if options.family and options.family not in FAMILIES:
        raise ConfigError(f"--family: {options.family!r} is unknown; known: {', '.join(FAMILIES)}")
    language = options.language
    if not options.names:
        width = max(map(len, presets()))
        print("\n".join(f"{name:{width}}  {preset.title[language]}" for name, preset in presets().items()))
        return {"presets": [_as_dict(preset, options.family, language) for preset in presets().values()]}
    chosen = find_presets(options.names)
    print("\n\n".join("\n".join(_lines(preset, options.family, language)) for preset in chosen))
    return {"presets": [_as_dict(preset, options.family, language) for preset in chosen]}


def _parts(preset: Any, family: str | None) -> dict[str, Any]:
    """Headed groups of entries: one where the family is known, else the common ones and each family's."""
    if family:
        return {family: preset.entries(family)}
    return {"": preset.common, **{name: entries for name, entries in preset.families.items() if entries}}


def _lines(preset: Any, family: str | None, language: str) -> list[str]:
    lines = [f"{preset.name}: {preset.title[language]}", preset.description[language]]
    for part, entries in _parts(preset, family).items():
        lines += [f"for {part}:"] if part and entries else []
        lines += [line for entry in entries for line in (f"  {entry.setting} = {_text(entry.value)}", f"      {entry.why[language]}")]
    return lines


def _as_dict(preset: Any, family: str | None, language: str) -> dict[str, Any]:
    settings = {
        part or "all": {entry.setting: {"value": entry.value, "why": entry.why[language]} for entry in entries}
        for part, entries in _parts(preset, family).items()
    }
    return {"name": preset.name, "title": preset.title[language], "description": preset.description[language], "settings": settings}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
