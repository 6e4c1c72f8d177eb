"""Arguments written as text: weight_decay=0.02 betas=0.95,0.98."""

from __future__ import annotations

from typing import Any

import yaml

FORM = "name=value, such as weight_decay=0.02 betas=0.9,0.95"
_PYTHON = {"None": None, "True": True, "False": False}


def parse_arguments(value: Any) -> Any:
    """{"weight_decay": 0.02, "betas": [0.95, 0.98]} from the text; what is no text is returned as it is.

    Arguments are separated by spaces. The name ends at the first "=". A comma at the end separates arguments and is no part
    of a value. ValueError where the text has another form or names an argument twice.
    """
    if not isinstance(value, str):
        return value
    result: dict[str, Any] = {}
    for item in value.split():
        name, _, text = item.rstrip(",").partition("=")
        if not (name and text):
            raise ValueError(f"{item!r} is not written as {FORM}")
        if name in result:
            raise ValueError(f"{name} is given twice")
        result[name] = _value(text)
    return result


def _value(text: str) -> Any:
    if text in _PYTHON:
        return _PYTHON[text]
    listed = "," in text and text[0] not in "[({"
    try:
        return yaml.safe_load(f"[{text.strip('()')}]" if listed or text[0] == "(" else text)
    except yaml.YAMLError:
        raise ValueError(f"{text!r} cannot be read as a value") from None
