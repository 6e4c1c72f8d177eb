"""From vectors and rules to one ratio per module of an adapter file."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..adapters.stored import StoredModule
from ..errors import ConfigError
from ..families.block_vectors import Number, plain_number, vector_values
from ..families.blocks import BlockTable
from ..seeds import derive
from .presets import Presets

RANDOM = {"R": (0.0, 1.0), "U": (-0.5, 1.5)}  # tokens of vectors: drawn evenly between two numbers


@dataclass(frozen=True)
class Rule:
    """`blocks:elements:ratio`: modules of these blocks whose name has one of these parts get this ratio. Empty means all."""

    text: str
    blocks: frozenset[str]
    other_blocks: bool  # NOT: every block but these
    elements: tuple[str, ...]
    other_elements: bool
    ratio: float

    def fits(self, module: StoredModule, block: str | None) -> bool:
        name = module.name.replace(".", "_").lower()
        in_blocks = not self.blocks or (block in self.blocks) != self.other_blocks
        return in_blocks and (not self.elements or any(part in name for part in self.elements) != self.other_elements)


def random_number(seed: int) -> Number:
    """Numbers, and the tokens of `RANDOM`: three decimals, from the seed and the block alone."""

    def number(text: str, block: str) -> float:
        limits = RANDOM.get(text.strip().upper())
        return round(random.Random(derive(seed, "block weight", block)).uniform(*limits), 3) if limits else plain_number(text, block)

    return number


def block_ratios(text: str, table: BlockTable, presets: Presets, seed: int) -> dict[str, float]:
    """A ratio for every block and text encoder. What a list of block=number items leaves out keeps 1, and so do text
    encoders that a list has no place for. ConfigError for a text that is neither a preset nor fits the table."""
    resolved = presets.vector(text.strip() or "1")
    where = f"vector {text!r}" if resolved != text and text else "vector"
    if re.fullmatch(r"\s*[A-Za-z][\w.-]*\s*", resolved) and resolved.strip().upper() not in RANDOM:
        raise ConfigError(f"vector: {text!r} is no preset; known: {', '.join(presets.vectors)}")
    values = vector_values(resolved, table, where, number=random_number(seed))
    return dict.fromkeys(table.names, 1.0) | values


def parse_rules(text: str, table: BlockTable, presets: Presets, seed: int) -> list[Rule]:
    """Rules are separated by line ends or semicolons, each a preset's name, blocks:elements:ratio, or ID:blocks:elements:ratio."""
    rules = []
    for item in filter(None, (part.strip() for part in re.split(r"[\n;]", text))):
        fields = presets.rules.get(item.upper(), item).split(":")
        if len(fields) not in (3, 4):
            known = ", ".join(presets.rules)
            raise ConfigError(f"rules: {item!r} is neither written as blocks:elements:ratio nor one of {known}")
        blocks, elements, ratio = fields[-3:]
        names, other_blocks = _words(blocks)
        parts, other_elements = _words(elements)
        try:
            value = random_number(seed)(ratio, item)
        except ValueError:
            raise ConfigError(f"rules: {item!r}: {ratio!r} is not a number") from None
        found = frozenset(name for word in names for name in _blocks(word, table, item))
        rules.append(Rule(item, found, other_blocks, tuple(part.lower() for part in parts), other_elements, value))
    return rules


def module_ratios(modules: Sequence[StoredModule], table: BlockTable, ratios: dict[str, float], rules: Iterable[Rule]) -> dict[str, float]:
    """Module name -> ratio. A module of no block has 1 unless a rule says otherwise; of several rules the last one counts.

    ConfigError for a rule that fits no module, and for a ratio between 0 and 1 where an algorithm knows only all or nothing.
    """
    blocks = {module.name: table.block_of(module.name) for module in modules}
    result = {name: ratios.get(block, 1.0) if block else 1.0 for name, block in blocks.items()}
    for rule in rules:
        fitting = [module.name for module in modules if rule.fits(module, blocks[module.name])]
        if not fitting:
            raise ConfigError(f"rules: {rule.text!r} fits no module of this file; names look like {modules[0].name if modules else '-'}")
        result |= dict.fromkeys(fitting, rule.ratio)
    check_ratios(modules, result)
    return result


def check_ratios(modules: Iterable[StoredModule], result: Mapping[str, float]) -> None:
    """ConfigError for a ratio that the kind of its module does not know."""
    stuck = [module.name for module in modules if module.whole and result[module.name] not in (0, 1)]
    if stuck:
        raise ConfigError(f"{stuck[0]} and {len(stuck) - 1} more modules are of a kind that cannot be scaled; give their blocks 0 or 1")


def _words(text: str) -> tuple[list[str], bool]:
    words = [word for word in re.split(r"[,\s]+", text.strip()) if word]
    negated = bool(words) and words[0].upper() == "NOT"
    return words[1:] if negated else words, negated


def _blocks(word: str, table: BlockTable, rule: str) -> tuple[str, ...]:
    """A block, a range, or the beginning of names: IN is every input block."""
    try:
        return table.expand(word)
    except KeyError:
        found = tuple(name for name in table.names if name.startswith(word.upper()))
    if not found:
        raise ConfigError(f"rules: {rule!r}: {word!r} is no block of {table.title}; blocks: {', '.join(table.names)}")
    return found
