"""What an import gives: sections as in YAML, and lists of what did not come along as it was."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Imported:
    """`values` are sections as in YAML; the lists hold one sentence each."""

    values: dict[str, Any] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)  # their names that became settings
    unknown: list[str] = field(default_factory=list)  # not understood
    lost: list[str] = field(default_factory=list)  # understood, but nothing here does it
    needless: list[str] = field(default_factory=list)  # understood, and done without a setting
    different: list[str] = field(default_factory=list)  # there, but not quite the same
    missing: list[str] = field(default_factory=list)  # settings to be filled in by hand

    def complete(self) -> dict[str, Any]:
        """The values with a placeholder for what is missing."""
        result = copy.deepcopy(self.values)
        result["base"] = {"checkpoint": "?", **result.get("base", {})}
        result["dataset"] = {"folders": [{"path": "?"}], **result.get("dataset", {})}
        return result

    def put(self, setting: str, value: Any) -> None:
        *sections, name = setting.split(".")
        target = self.values
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value

    def get(self, setting: str) -> Any:
        target: Any = self.values
        for key in setting.split("."):
            if isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
            else:
                target = target.get(key) if isinstance(target, Mapping) else None
        return target

    def remove(self, setting: str) -> Any:
        """Take a setting out; its value, or None where it was not there."""
        section, _, name = setting.rpartition(".")
        holder = self.get(section)
        return holder.pop(name, None) if isinstance(holder, dict) else None

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"{len(self.taken)} settings taken over"]
        for heading, items in (
            ("not understood", self.unknown),
            ("understood, but not here", self.lost),
            ("needs no setting here", self.needless),
            ("not quite the same here", self.different),
            ("to be filled in", self.missing),
        ):
            lines += [f"{heading}:", *(f"  {item}" for item in items)] if items else []
        return lines
