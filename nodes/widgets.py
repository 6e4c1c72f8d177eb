"""Config fields as ComfyUI inputs, and back: default, limits and help are written once, in `trainer.config`.

An optional number has one value more, which stands for "not set": 0, or -1 where 0 is the smallest and has a meaning of its
own. Optional text is not set when it is empty. A size becomes two numbers, width and height.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import GenericAlias, NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..trainer.config.arguments import FORM
from ..trainer.config.section import Section
from ..trainer.errors import ConfigError
from .choices import choices

Input = tuple[Any, dict[str, Any]]
Size = tuple[int, int]
_ANSWERS = {"auto": None, "on": True, "off": False}  # of a switch that can also be left open


@dataclass(frozen=True)
class Widgets:
    """The inputs of one config section on a node.

    `names` renames fields; `prefix` stands before all the others. `advanced` are fields that this node keeps folded away
    beside those of the section itself.
    """

    section: type[Section]
    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()  # empty: all that are not skipped
    advanced: tuple[str, ...] = ()

    def inputs(self) -> dict[str, Input]:
        """Every field that has a default and can be a widget, in the section's order."""
        result: dict[str, Input] = {}
        for key, info in self._fields().items():
            options = {"default": info.default, "tooltip": info.description or "", **_ui(info)}
            if key in self.advanced:
                options["advanced"] = True
            if _kind(info) == Size:
                result |= _size_inputs(self._sides(), info, options)
            elif known := choices(self.section, key):
                result[self.name(key)] = (known, options)
            else:
                result[self.name(key)] = _input(info, options | ({"control_after_generate": False} if key == "seed" else {}))
        return result

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The section's values among a node's inputs; absent ones keep the section's defaults."""
        result: dict[str, Any] = {}
        for key, info in self._fields().items():
            if _kind(info) == Size:
                width, height = (given.get(side, 0) for side in self._sides())
                if width and height:
                    result[key] = (width, height)
            elif self.name(key) in given:
                result[key] = _value(info, given[self.name(key)])
        return result

    def build(self, given: Mapping[str, Any], **more: Any) -> Any:
        """The section. ConfigError names the widgets whose values are wrong."""
        try:
            return self.section.model_validate(self.values(given) | more)
        except ValidationError as error:
            raise ConfigError([self._sentence(item) for item in error.errors()]) from None

    def _sentence(self, item: Any) -> str:
        text = item["msg"].removeprefix("Value error, ")
        # A rule about several fields has no place of its own.
        return f"{self.name(str(item['loc'][0]))}: {text} (got {item['input']!r})" if item["loc"] else text

    def name(self, key: str) -> str:
        return self.names.get(key, self.prefix + key)

    def _sides(self) -> tuple[str, str]:
        """A size is `width` and `height` under the prefix, whatever its field is called."""
        return self.prefix + "width", self.prefix + "height"

    def _fields(self) -> dict[str, FieldInfo]:
        fields = {
            key: info for key, info in self.section.model_fields.items() if key not in self.skip and (not self.only or key in self.only)
        }
        return {key: info for key, info in fields.items() if not info.is_required() and _is_widget(info)}


def optional_inputs(*parts: Widgets) -> dict[str, Input]:
    """The inputs of several sections on one node; rarely used ones come last."""
    inputs = {name: value for part in parts for name, value in part.inputs().items()}
    return dict(sorted(inputs.items(), key=lambda item: bool(item[1][1].get("advanced"))))


def _ui(info: FieldInfo) -> dict[str, Any]:
    extra: Any = info.json_schema_extra or {}
    return dict(extra.get("ui", {}))


def _kind(info: FieldInfo) -> Any:
    """The bare type of a field, without None and without rules."""
    kind = info.annotation
    while hasattr(kind, "__metadata__") or NoneType in get_args(kind):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    return kind


def _is_optional(info: FieldInfo) -> bool:
    return NoneType in get_args(info.annotation)


def _is_widget(info: FieldInfo) -> bool:
    kind = _kind(info)
    only_one = get_origin(kind) is Literal and len(get_args(kind)) == 1
    nested = isinstance(kind, type) and not isinstance(kind, GenericAlias) and issubclass(kind, Section)
    return not (only_one or nested)


def _input(info: FieldInfo, options: dict[str, Any]) -> Input:
    kind = _kind(info)
    if kind is bool and _is_optional(info):
        return list(_ANSWERS), options | {"default": next(word for word, value in _ANSWERS.items() if value is info.default)}
    if kind is bool:
        return "BOOLEAN", options
    if get_origin(kind) is Literal:
        return list(get_args(kind)), options
    if kind in (int, float):
        return _number(kind, info, options)
    if kind == dict[str, Any]:
        options["tooltip"] += f" Written as {FORM}."
    elif kind is not str:  # a list of texts
        options |= {"multiline": True, "tooltip": f"{options['tooltip']} One a line."}
    default = "\n".join(info.default) if kind == tuple[str, ...] else info.default
    return "STRING", options | {"default": default if isinstance(default, str) else ""}


def _number(kind: type, info: FieldInfo, options: dict[str, Any]) -> Input:
    step = kind(options.get("step", 1 if kind is int else 0.01))
    low = _rule(info, "ge", _rule(info, "gt", 0) + (step if _rule(info, "gt") is not None else 0))
    high = _rule(info, "le", 2**53)
    options |= {"min": kind(low), "max": kind(high), "step": step}
    if kind is float:
        options["round"] = False
    if _is_optional(info):
        empty = kind(_empty(info))
        options |= {"min": min(empty, options["min"]), "tooltip": f"{options['tooltip']} {empty:g} = not set."}
        options["default"] = empty if info.default is None else info.default
    return ("INT" if kind is int else "FLOAT"), options


def _rule(info: FieldInfo, name: str, default: Any = None) -> Any:
    return next((getattr(rule, name) for rule in info.metadata if hasattr(rule, name)), default)


def _empty(info: FieldInfo) -> int:
    """The number that stands for "not set"."""
    return -1 if _rule(info, "ge", 0) == 0 else 0


def _size_inputs(names: tuple[str, str], info: FieldInfo, options: dict[str, Any]) -> dict[str, Input]:
    limits = {"min": 0 if _is_optional(info) else 16, "max": 8192, "step": 8}
    note = " 0 = not set." if _is_optional(info) else ""
    return {
        name: ("INT", options | limits | {"default": side, "tooltip": f"{word}: {options['tooltip']}{note}"})
        for name, word, side in zip(names, ("Width", "Height"), info.default or (0, 0), strict=True)
    }


def _value(info: FieldInfo, value: Any) -> Any:
    kind = _kind(info)
    if kind is bool and _is_optional(info):
        return _ANSWERS[value]
    if _is_optional(info) and (value == "" if kind is str else value == _empty(info)):
        return None
    if kind == tuple[str, ...]:
        return tuple(line.strip() for line in value.splitlines() if line.strip())
    return value
