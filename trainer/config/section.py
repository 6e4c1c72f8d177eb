"""The base of every configuration section, and `option`, which declares one setting with all that is known of it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """Frozen, and strict about names: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())


def option(default: Any, help: str, *, advanced: bool = False, multiline: bool = False, step: float | None = None, **rules: Any) -> Any:
    """One setting: default, one-sentence help, limits (`ge`, `le`, `gt`, `lt` …).

    `advanced`, `multiline` and `step` are read by the ComfyUI widgets, so that nobody types a default or a help text twice.
    """
    ui: Any = {key: value for key, value in (("advanced", advanced), ("multiline", multiline), ("step", step)) if value}
    extra: Any = {"ui": ui} if ui else None
    return Field(default, description=help, json_schema_extra=extra, **rules)


def _reject_bool(value: Any) -> Any:
    """YAML's yes/no would otherwise count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number, not yes/no")
    return value


Int = Annotated[int, BeforeValidator(_reject_bool)]
Float = Annotated[float, BeforeValidator(_reject_bool)]
