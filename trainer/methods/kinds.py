"""An adapter algorithm with the options of a configuration."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ..adapters import ADAPTERS, Adapter
from ..config import AdapterSection
from .targets import trains_convolutions


def algorithm(section: AdapterSection) -> Adapter:
    """The algorithm that `method.adapter` names, with its own options."""
    adapter: Any = ADAPTERS[section.adapter]
    return replace(adapter, **{name: getattr(section, name) for name in _own(adapter)})


def check_options(section: AdapterSection) -> tuple[list[str], list[str]]:
    """Problems and warnings about options of the algorithms; every sentence names its field."""
    if section.adapter not in ADAPTERS:
        return [f"method.adapter: {section.adapter!r} is unknown; known: {', '.join(ADAPTERS)}"], []
    problems, warnings = [], []
    owners: dict[str, list[str]] = {}
    for adapter in ADAPTERS.values():
        for name in _own(adapter):
            owners.setdefault(name, []).append(adapter.name)
    for name, names in owners.items():
        if section.adapter not in names and getattr(section, name) != AdapterSection.model_fields[name].default:
            warnings.append(f"method.{name}: has no effect with {section.adapter}; it is an option of {', '.join(names)}")
    if section.conv_alpha is not None and section.conv_rank is None:
        warnings.append("method.conv_alpha: has no effect without method.conv_rank")
    if section.tucker and not trains_convolutions(section):
        warnings.append("method.tucker: acts on convolutions larger than 1x1, which are trained only with method.conv_rank")
    if section.adapter in owners["dylora_unit"]:
        for name in ("rank", "conv_rank"):
            value = getattr(section, name)
            if value is not None and value % section.dylora_unit:
                problems.append(f"method.{name}: {value} is no multiple of method.dylora_unit, {section.dylora_unit}; change one of them")
    return problems, warnings


def _own(adapter: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(adapter))
