"""Values as kohya's files hold them: numbers and switches written as text, empty text for "not set", 0 for "off"."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Convert = Callable[[Any], Any]  # ValueError for a value that means nothing
LEAVE = object()  # what a conversion returns where the value says nothing


class NoCounterpart(ValueError):
    """The value means something, but nothing here does it."""


def is_set(value: Any) -> bool:
    """Windows write what was left empty as "", null or "None"."""
    return not (value is None or value == [] or (isinstance(value, str) and value.strip() in ("", "None")))


def is_off(value: Any) -> bool:
    """Whether a value switches nothing on."""
    if not is_set(value):
        return True
    text = str(value).strip().lower()
    return text in ("false", "no", "none", "off") or (_is_number(text) and float(text) == 0)


def text(value: Any) -> str:
    return str(value).strip()


def number(value: Any) -> float:
    """1e-4, "1e-4" and 1 alike."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return float(value)


def whole(value: Any) -> int:
    """3, "3" and 3.0 alike."""
    found = number(value)
    if not found.is_integer():
        raise ValueError("expected a whole number")
    return int(found)


def switch(value: Any) -> bool:
    """True, "True", "true", 1 and "1" alike."""
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    found = known.get(str(value).strip().lower())
    if found is None:
        raise ValueError("expected True or False")
    return found


def negated(value: Any) -> bool:
    return not switch(value)


def on(meaning: Any) -> Convert:
    """A switch that only says something when it is on."""
    return lambda value: meaning if switch(value) else LEAVE


def or_off(inner: Convert) -> Convert:
    """0 means off, which is null here."""
    return lambda value: None if is_off(value) else inner(value)


def percent(value: Any) -> float:
    """A part of all steps; 100 stays below 1, which means one step here."""
    return min(number(value) / 100, 0.9999)


def percent_or_never(value: Any) -> float | None:
    """A part of all steps after which something ends; at 0, and where none are left, it never does."""
    return None if is_off(value) or number(value) >= 100 else percent(value)


def part_or_count(value: Any) -> float:
    """Below 1 a part of all steps, else a number of steps; "10%" is 0.1."""
    value = text(value)
    return percent(value[:-1]) if value.endswith("%") else number(value)


def size(value: Any) -> list[int]:
    """[width, height] from 512, "512", "512,768" or [512, 768]."""
    parts = value if isinstance(value, (list, tuple)) else text(value).split(",")
    sides = [whole(part) for part in parts]
    if len(sides) not in (1, 2):
        raise ValueError("expected a size such as 512 or 512,768")
    return [sides[0], sides[-1]]


def one_of(names: Mapping[str, Any]) -> Convert:
    """A name of theirs, in any case, to ours."""

    def converted(value: Any) -> Any:
        found = names.get(text(value).lower())
        if found is None:
            raise NoCounterpart(f"known here: {', '.join(name for name in names if name)}")
        return found

    return converted


def listed(value: Any) -> list[str]:
    """The items of a list, or of a text that holds one with spaces between, where the window takes no notice of quotes."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [text(item) for item in value]
    return text(value).replace('"', "").split()


def numbers(value: Any) -> list[float]:
    """Rates of several text encoders: 1e-4, [1e-4, 5e-5], "1e-4 5e-5" or "[1e-4, 5e-5]"."""
    return [number(item) for item in (value if isinstance(value, (list, tuple)) else re.split(r"[,\s]+", text(value).strip("[]() ")))]


def by_block(value: Any) -> str:
    """Values of blocks as text: [0, 0.5, 1] is "0, 0.5, 1"; the name of a curve stays."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else text(value)


def arguments(value: Any) -> dict[str, Any]:
    """{"weight_decay": 0.01, "betas": [0.9, 0.99]} from ["weight_decay=0.01", "betas=0.9,0.99"]; sequences become lists."""
    found = {}
    for item in listed(value):
        name, equals, content = item.partition("=")
        if not (name and equals):
            raise ValueError(f"{item!r} is not written as name=value")
        try:
            parsed = ast.literal_eval(content)
        except (ValueError, SyntaxError):
            parsed = content
        found[name.strip()] = list(parsed) if isinstance(parsed, tuple) else parsed
    return found


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
