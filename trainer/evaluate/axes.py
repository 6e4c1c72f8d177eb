"""What can vary along an axis of a grid, and how its values are written."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..block_weights import Presets, read_presets
from ..config import Prompt
from ..errors import ConfigError
from .cells import Cell, LoraUse
from .lora_files import find_loras

_MOST_VALUES = 200
_RANGE = re.compile(r"(-?\d*\.?\d+)(?:-(-?\d*\.?\d+)/(\d*\.?\d+))?")
_USE = re.compile(r"(.+?)(?::(-?\d*\.?\d+))?(?::(-?\d*\.?\d+))?")


@dataclass(frozen=True)
class Names:
    """What names in an axis stand for: files of the disk here, lists of ComfyUI in its nodes."""

    loras: Callable[[str], list[Path]] = find_loras
    checkpoint: Callable[[str], str] = str
    samplers: Sequence[str] = ()
    schedulers: Sequence[str] = ()
    presets: Presets = field(default_factory=read_presets)


@dataclass(frozen=True)
class Axis:
    """One dimension of a grid: a kind of `AXES` with its labels and values."""

    kind: str
    labels: tuple[str, ...]
    values: tuple[Any, ...]

    def put(self, cell: Cell, number: int) -> Cell:
        """The cell with this axis at its value `number`."""
        return AXES[self.kind].put(cell, self.values[number])


@dataclass(frozen=True)
class AxisKind:
    """`parse` reads (label, value) pairs from a text; `put` gives a cell such a value."""

    help: str
    parse: Callable[[str, Names], list[tuple[str, Any]]]
    put: Callable[[Cell, Any], Cell]


def make_axis(kind: str, text: str, names: Names) -> Axis:
    """ConfigError for an unknown kind, and for values that do not fit it."""
    if kind not in AXES:
        known = "\n  ".join(f"{name}: {item.help}" for name, item in AXES.items())
        raise ConfigError(f"axis: {kind!r} is unknown; known:\n  {known}")
    pairs = list(dict.fromkeys(AXES[kind].parse(text, names)))
    if not pairs:
        raise ConfigError(f"{kind}: the axis has no values; {AXES[kind].help}")
    return Axis(kind, tuple(label for label, _ in pairs), tuple(value for _, value in pairs))


def lora_axis(files: Sequence[Path]) -> Axis:
    paths = tuple(dict.fromkeys(Path(file) for file in files))
    return Axis("lora", tuple(file_labels(paths)), paths)


def file_labels(paths: Sequence[Path]) -> list[str]:
    """What tells files apart: their stems, with so many of their folders as that takes, or else their endings."""
    choices = [["/".join((*path.parts[-count:-1], path.stem)) for count in range(1, len(path.parts) + 1)] for path in paths]
    choices = [[*ends, path.name, str(path)] for path, ends in zip(paths, choices, strict=True)]
    uses = Counter(text for texts in choices for text in set(texts))
    return [next((text for text in texts if uses[text] == 1), texts[-1]) for texts in choices]


def number_axis(kind: str, values: Sequence[float]) -> Axis:
    return Axis(kind, tuple(_number_label(kind, value) for value in values), tuple(values))


def parse_numbers(text: str, what: str = "strengths") -> tuple[float, ...]:
    """Numbers and ranges such as "0, 0.5, 0.8-1.2/0.2" (from-to/step), in the order given, without repetitions."""
    return tuple(float(number) for number in _decimals(text, what))


def parse_uses(text: str, names: Names) -> tuple[LoraUse, ...]:
    """LoRAs of one a line, each `name`, `name:strength` or `name:strength:strength of the text encoders`."""
    uses = []
    for item in _items(text):
        match = _USE.fullmatch(item)
        assert match, item
        uses += [
            LoraUse(file, float(match[2] or 1), None if match[3] is None else float(match[3])) for file in names.loras(match[1].strip())
        ]
    return tuple(uses)


def _decimals(text: str, what: str) -> list[Decimal]:
    result: list[Decimal] = []
    for item in re.split(r"[,\s;]+", text.strip()):
        match = _RANGE.fullmatch(item)
        if not match:
            raise ConfigError(f"{what}: {item!r} is neither a number nor a range such as 0.2-1.2/0.2")
        if match[2] is None:
            result.append(Decimal(item))
            continue
        start, end, step = (Decimal(number) for number in match.groups())
        if step == 0 or end < start or (end - start) / step > _MOST_VALUES:
            raise ConfigError(f"{what}: the range {item!r} needs a step above 0, an end not below its start, at most {_MOST_VALUES} values")
        result += [start + step * number for number in range(int((end - start) / step) + 1)]
    return list(dict.fromkeys(result))


def _items(text: str) -> list[str]:
    """One a line, or separated by semicolons."""
    return [item.strip() for item in re.split(r"[\n;]", text) if item.strip()]


# --- the kinds -----------------------------------------------------------------------------------------------------


def _loras(text: str, names: Names) -> list[tuple[str, Path]]:
    axis = lora_axis([file for item in _items(text) for file in names.loras(item)])
    return list(zip(axis.labels, axis.values, strict=True))


def _checkpoints(text: str, names: Names) -> list[tuple[str, str]]:
    items = list(dict.fromkeys(_items(text)))
    return [(label, names.checkpoint(item)) for label, item in zip(file_labels([Path(item) for item in items]), items, strict=True)]


def _blocks(text: str, names: Names) -> list[tuple[str, str]]:
    return [(f"blocks {item}", names.presets.vector(item)) for item in _items(text)]


def _replacements(text: str, _names: Names) -> list[tuple[str, tuple[str, str]]]:
    """As web UIs write it: the text to search for, then what stands in its place, separated by commas or lines."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    words = [word.strip() for row in rows for word in row if word.strip()]
    return [(word, (words[0], word)) for word in words]


def _from(known: str) -> Callable[[str, Names], list[tuple[str, str]]]:
    """Names out of the list that `Names` holds under `known`."""

    def parse(text: str, names: Names) -> list[tuple[str, str]]:
        found = [item for item in re.split(r"[,\s;]+", text) if item]
        unknown = [item for item in found if item not in getattr(names, known)]
        if unknown:
            raise ConfigError(f"{known}: {unknown[0]!r} is unknown; known: {', '.join(getattr(names, known))}")
        return [(item, item) for item in found]

    return parse


def _numbers(kind: str, convert: type = float) -> Callable[[str, Names], list[tuple[str, Any]]]:
    def parse(text: str, _names: Names) -> list[tuple[str, Any]]:
        numbers = _decimals(text, kind)
        wrong = [number for number in numbers if convert is int and number != int(number)]
        if wrong:
            raise ConfigError(f"{kind}: {wrong[0]} is not a whole number")
        return [(_number_label(kind, convert(number)), convert(number)) for number in numbers]

    return parse


def _number_label(kind: str, value: float) -> str:
    return f"{_WORDS.get(kind, kind)} {value if isinstance(value, int) else format(value, 'g')}"


def _put_lora(name: str) -> Callable[[Cell, Any], Cell]:
    """Change one field of the LoRA that is tested, which is the first."""

    def put(cell: Cell, value: Any) -> Cell:
        if not cell.loras:
            raise ConfigError(f"{name}: this axis needs a LoRA; name one, or take LoRA files as another axis")
        return replace(cell, loras=(replace(cell.loras[0], **{name: value}), *cell.loras[1:]))

    return put


def _put_file(cell: Cell, value: Path) -> Cell:
    first = replace(cell.loras[0], file=value) if cell.loras else LoraUse(value)
    return replace(cell, loras=(first, *cell.loras[1:]))


def _put_request(name: str) -> Callable[[Cell, Any], Cell]:
    def put(cell: Cell, value: Any) -> Cell:
        try:
            Prompt.model_validate({"prompt": "", name: value})
        except ValidationError as error:
            raise ConfigError(f"{name}: {error.errors()[0]['msg']} (got {value!r})") from None
        return replace(cell, request=replace(cell.request, **{name: value}))

    return put


def _put_prompt(cell: Cell, value: tuple[str, str]) -> Cell:
    search, word = value
    texts = {name: getattr(cell.request, name) for name in ("prompt", "negative")}
    if not any(search in text for text in texts.values()):
        raise ConfigError(f"prompt: the first word of the axis, {search!r}, is what is replaced; it is not in {texts['prompt']!r}")
    return replace(cell, request=replace(cell.request, **{name: text.replace(search, word) for name, text in texts.items()}))


_WORDS = {"strength_clip": "CLIP strength"}
_RANGES = "numbers and ranges such as 0.1-1.2/0.1 (from-to/step)"
AXES: dict[str, AxisKind] = {
    "lora": AxisKind("LoRA files, patterns or folders of runs, one a line or separated by ;", _loras, _put_file),
    "strength": AxisKind(f"{_RANGES}; 0 is the model alone", _numbers("strength"), _put_lora("strength")),
    "strength_clip": AxisKind(f"strengths of the text encoders: {_RANGES}", _numbers("strength_clip"), _put_lora("strength_clip")),
    "blocks": AxisKind("vectors of block weights or names of presets, one a line or separated by ;", _blocks, _put_lora("blocks")),
    "checkpoint": AxisKind("models, one a line or separated by ;", _checkpoints, lambda cell, value: replace(cell, checkpoint=value)),
    "prompt": AxisKind("the text to search for in the prompts, then what replaces it, separated by commas", _replacements, _put_prompt),
    "seed": AxisKind(f"whole numbers: {_RANGES}", _numbers("seed", int), _put_request("seed")),
    "cfg": AxisKind(_RANGES, _numbers("cfg"), _put_request("cfg")),
    "steps": AxisKind(f"whole numbers: {_RANGES}", _numbers("steps", int), _put_request("steps")),
    "sampler": AxisKind("names of samplers, separated by commas", _from("samplers"), _put_request("sampler")),
    "scheduler": AxisKind("names of noise schedules, separated by commas", _from("schedulers"), _put_request("scheduler")),
}
