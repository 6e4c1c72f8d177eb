"""The settings as a table, for the README; `python -m trainer.reference` prints it."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .choices import CHOICES
from .config import Prompt, TrainConfig


def reference() -> str:
    """A Markdown table of every setting: path, default, meaning and limits."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for path, field in _settings(TrainConfig, ""):
        rows.append(f"| `{path}` | {_default(field)} | {_meaning(path, field)} |")
    return "\n".join(rows)


def _settings(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        path = prefix + (field.alias or name)
        inner, repeated = _section_of(field.annotation)
        if inner is not None and inner is not Prompt and not (repeated and not field.is_required()):
            yield from _settings(inner, path + ("[]." if repeated else "."))
        else:
            yield path, field


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section class of an annotation, and whether it is a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if typing.get_origin(annotation) is tuple:
        first = typing.get_args(annotation)[0]
        if isinstance(first, type) and issubclass(first, BaseModel):
            return first, True
    return None, False


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None:
        return "`null`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if value != "" else '`""`'


def _meaning(path: str, field: FieldInfo) -> str:
    text = (field.description or "").replace("|", "\\|")
    choices = CHOICES.get(path, [part for part in typing.get_args(field.annotation) if isinstance(part, str)])
    if len(choices) > 1:
        text += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    limits = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in _LIMITS
        if abs(getattr(rule, name, None) or 0) <= _LARGEST and hasattr(rule, name)
    ]
    return text + (f" ({', '.join(limits)})" if limits else "")


_LARGEST = 10**6  # limits beyond it are of the number format, not of the matter
_LIMITS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))

if __name__ == "__main__":
    print(reference())
