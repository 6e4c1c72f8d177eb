"""Sample prompts as sd-scripts write them: one a line, with --n --w --h --d --s --l --ss behind the text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..files import read_text
from . import values as to
from .names import SAMPLERS

_SIZE = 512  # a side that a prompt leaves open
_FLAGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "n": ("negative", to.text),
    "d": ("seed", to.whole),
    "s": ("steps", to.whole),
    "l": ("cfg", to.number),
    "ss": ("sampler", to.one_of(SAMPLERS)),
}
_SIDES = {"w": 0, "h": 1}
# The same in a JSON file.
_NAMES = {"negative_prompt": "n", "width": "w", "height": "h", "seed": "d", "sample_steps": "s", "scale": "l", "sample_sampler": "ss"}


def read_prompts(source: Path | str) -> tuple[list[dict[str, Any]], list[str]]:
    """Prompts under our names, and sentences about what they say beyond that. `source` is a file or the lines themselves.

    OSError or ValueError for a file that cannot be read.
    """
    if isinstance(source, Path) and source.suffix.lower() == ".json":
        found = json.loads(read_text(source))
        if not isinstance(found, list) or not all(isinstance(item, (str, Mapping)) for item in found):
            raise ValueError("it should hold a list of prompts")
        items = [_from_json(item) for item in found]
    elif isinstance(source, Path) and source.suffix.lower() == ".toml":
        return [], [f"sample_prompts = {str(source)!r}: prompts are read from .txt and .json"]
    else:
        text = read_text(source) if isinstance(source, Path) else source
        lines = [line.strip() for line in text.splitlines()]
        items = [_from_line(line) for line in lines if line and not line.startswith("#")]
    prompts, notes = [], []
    for text, flags in items:
        prompt: dict[str, Any] = {"prompt": text}
        size = [_SIZE, _SIZE]
        for flag, value in flags:
            try:
                if flag in _SIDES:
                    size[_SIDES[flag]] = to.whole(value) // 8 * 8
                    prompt["size"] = size
                else:
                    name, convert = _FLAGS[flag]
                    prompt[name] = convert(value)
            except (KeyError, ValueError, TypeError):
                notes.append(f"sample_prompts: --{flag} {value} of {text!r} is not there")
        prompts.append(prompt)
    return prompts, notes


def _from_line(line: str) -> tuple[str, list[tuple[str, Any]]]:
    text, *parts = line.split(" --")
    flags = [match.groups() for part in parts if (match := re.match(r"([A-Za-z]+)\s+(.+)", part))]
    return text.strip(), [(flag.lower(), value.strip()) for flag, value in flags]


def _from_json(item: Any) -> tuple[str, list[tuple[str, Any]]]:
    if isinstance(item, str):
        return _from_line(item)
    return str(item.get("prompt", "")), [(str(_NAMES.get(name, name)), value) for name, value in item.items() if name != "prompt"]
