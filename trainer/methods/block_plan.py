"""What each block of a model trains with: the settings of `method.blocks`, by the family's table of blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from ..adapters import ADAPTERS
from ..columns import columns
from ..config import AdapterSection, BlockSection
from ..errors import ConfigError
from ..families import AdapterTarget, FamilySpec
from ..families.block_vectors import part_values, plain_number, vector_values
from ..families.blocks import BlockTable
from .targets import rank_and_alpha, trains_convolutions


@dataclass(frozen=True)
class Place:
    """What one layer trains with."""

    group: str  # name of its parameter group
    multiplier: float  # of its part's learning rate
    rank: int
    alpha: float


@dataclass(frozen=True)
class BlockRow:
    """One line of the table: layers of one block that have the same rank and alpha."""

    block: str
    modules: int
    multiplier: float
    rate: float
    rank: int
    alpha: float


@dataclass(frozen=True)
class BlockReport:
    """The blocks of a training, and those whose settings do nothing."""

    table: BlockTable
    rows: tuple[BlockRow, ...]
    warnings: tuple[str, ...]

    def as_rows(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]

    def lines(self) -> list[str]:
        """A table for a person."""
        cells: list[tuple[str, ...]] = [("block", "modules", "multiplier", "learning rate", "rank", "alpha")]
        for row in self.rows:
            values = (f"{row.multiplier:g}", f"{row.rate:.3g}", f"{row.rank}", f"{row.alpha:g}") if row.modules else ("-",) * 4
            cells.append((row.block, f"{row.modules}", *values))
        return columns(cells)


@dataclass(frozen=True)
class BlockPlan:
    """Numbers by block; what is not in a mapping has the default of the method's section."""

    section: AdapterSection
    table: BlockTable | None = None  # None: all blocks are alike
    weights: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # setting of BlockSection -> block -> number
    named: frozenset[str] = frozenset()  # blocks that got a number of their own

    def place(self, target: AdapterTarget) -> Place | None:
        """None for a layer that is left out."""
        block = self.table.block_of(target.key) if self.table else None
        kind = "conv_" if _is_spatial(target.module) else ""
        rank, alpha = int(self.size(f"{kind}ranks", block)), self.size(f"{kind}alphas", block)
        if block is None:
            return Place(target.part, 1.0, rank, alpha)
        multiplier = self.weights.get(block, 1.0)
        own_rate = self.table is not None and block in self.table.blocks and bool(self.weights)
        return Place(f"{target.part} {block}" if own_rate else target.part, multiplier, rank, alpha) if multiplier and rank else None

    def multipliers(self) -> set[float]:
        """The different multipliers of the learning rate among the blocks that are trained."""
        parts = [self.table.blocks] if self.table and self.section.train_unet else []
        parts += [self.table.text] if self.table and self.section.train_text_encoder else []
        return {self.weights.get(name, 1.0) for part in parts for name in part} - {0.0}

    def size(self, setting: str, block: str | None) -> float:
        """`ranks`, `alphas`, `conv_ranks` or `conv_alphas` of a block; those of no block have the section's."""
        rank, alpha = rank_and_alpha(self.section, setting.startswith("conv_"))
        if setting == "conv_ranks" and self.section.conv_rank is None and setting in self.sizes:
            rank = 0  # only the blocks that `conv_ranks` names have such layers
        default = rank if setting.endswith("ranks") else alpha
        return self.sizes.get(setting, {}).get(block, default) if block else default

    def report(self, targets: Iterable[AdapterTarget], rates: Mapping[str, float]) -> BlockReport:
        """`rates` has the learning rate of each part. ConfigError where nothing of the image part would be trained."""
        assert self.table is not None
        counts: Counter[tuple[str, str, Place | None]] = Counter()
        for target in targets:
            counts[self.table.block_of(target.key) or target.part, target.part, self.place(target)] += 1
        image = [place for _, part, place in counts if part == "unet"]
        if image and not any(image):
            raise ConfigError("method.blocks: every block is left out; raise a weight or rank, or set method.train_unet to false")
        present = [block for block, _, _ in counts]
        rows = []
        for name in dict.fromkeys((*self.table.names, *present)):
            found = [(part, place, number) for (block, part, place), number in counts.items() if block == name and place]
            rows += [
                BlockRow(name, number, place.multiplier, rates[part] * place.multiplier, place.rank, place.alpha)
                for part, place, number in found
            ]
            if not found and (name in present or name in self.named):
                rows.append(BlockRow(name, 0, self.weights.get(name, 1.0), 0.0, 0, 0.0))
        return BlockReport(self.table, tuple(rows), self._warnings(present))

    def _warnings(self, present: Iterable[str]) -> tuple[str, ...]:
        """What is set for nothing, or the slow way."""
        idle = [name for name in (self.table.names if self.table else ()) if name in self.named and name not in present]
        warnings = [f"method.blocks: {', '.join(idle)} have no layer that this LoRA trains; their values do nothing"] if idle else []
        text = [name for name in (self.table.text if self.table else ()) if self.weights.get(name) == 0 and name in present]
        warnings += ["method.blocks: the text encoder has weight 0; method.train_text_encoder false is the same and faster"] if text else []
        return tuple(warnings)


def plan_blocks(section: AdapterSection, spec: FamilySpec) -> BlockPlan:
    """ConfigError lists every setting of `method.blocks` that does not fit the family."""
    blocks, table = section.blocks, spec.blocks
    if blocks == BlockSection():
        return BlockPlan(section)
    if table is None:
        raise ConfigError(f"method.blocks: {spec.title} has no table of blocks; leave these settings empty")
    reader = _Reader(blocks, table)
    weights, sizes = reader.weights(), reader.sizes()
    problems = reader.problems or _contradictions(section, table, weights, sizes)
    if problems:
        raise ConfigError(problems)
    return BlockPlan(section, table, weights, sizes, frozenset(reader.named))


class _Reader:
    """Reads the texts of a section; mistakes are collected."""

    def __init__(self, blocks: BlockSection, table: BlockTable):
        self.blocks, self.table = blocks, table
        self.problems: list[str] = []
        self.named: set[str] = set()

    def weights(self) -> dict[str, float]:
        """Empty where none are given. Below or at the threshold they are 0."""
        blocks, table = self.blocks, self.table
        parts = [part for part in ("down", "mid", "up") if getattr(blocks, part).strip()]
        given: dict[str, float] = {}
        for part in parts:
            given |= self._read(part, lambda text, where, part=part: part_values(text, table, part, where))
        if blocks.weights.strip():
            given |= self._read("weights", lambda text, where: vector_values(text, table, where))
            if parts:
                self.problems.append(f"method.blocks.weights: it stands in place of {', '.join(parts)}; give one or the other")
        elif not parts:
            if blocks.zero_threshold:
                self.problems.append(
                    f"method.blocks.zero_threshold: {blocks.zero_threshold:g} acts on down, mid, up or weights, and none is given"
                )
            return {}
        weights = dict.fromkeys(table.blocks, 1.0) | given
        return {name: 0.0 if weight <= blocks.zero_threshold else weight for name, weight in weights.items()}

    def sizes(self) -> dict[str, dict[str, float]]:
        """Setting -> block -> number."""
        result = {}
        for setting, number in (("ranks", _rank), ("alphas", _alpha), ("conv_ranks", _rank), ("conv_alphas", _alpha)):
            read = self._read(
                setting, lambda text, where, number=number: vector_values(text, self.table, where, text_encoders=False, number=number)
            )
            if read:
                result[setting] = read
        return result

    def _read(self, setting: str, parse: Callable[[str, str], dict[str, float]]) -> dict[str, float]:
        text = getattr(self.blocks, setting)
        if not text.strip():
            return {}
        try:
            values = parse(text, f"method.blocks.{setting}")
        except ConfigError as error:
            self.problems += error.problems
            return {}
        if len(set(values.values())) > 1 or "=" in text:  # one number for all is not meant for any block in particular
            self.named |= {name for name, value in values.items() if value}
        return values


def _rank(text: str, block: str) -> float:
    value = plain_number(text, block)
    if value != int(value) or not 0 <= value <= 1024:
        raise ValueError(text)
    return value


def _alpha(text: str, block: str) -> float:
    value = plain_number(text, block)
    if value < 0:
        raise ValueError(text)
    return value


def _contradictions(
    section: AdapterSection, table: BlockTable, weights: Mapping[str, float], sizes: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Settings that leave nothing, or a scale of 0."""
    ranks, conv_ranks = sizes.get("ranks", {}), sizes.get("conv_ranks", {})
    kept = [block for block in table.blocks if weights.get(block, 1.0) and (ranks.get(block, 1) or conv_ranks.get(block))]
    problems = []
    if section.train_unet and not kept:
        threshold = section.blocks.zero_threshold
        why = (
            f"no weight is above zero_threshold {threshold:g}" if weights and not any(map(weights.get, table.blocks)) else "every rank is 0"
        )
        problems.append(f"method.blocks: every block is left out: {why}; raise some, or set method.train_unet to false")
    if "conv_alphas" in sizes and not trains_convolutions(section):
        problems.append("method.blocks.conv_alphas: acts on 3x3 convolutions, which are trained only with method.conv_rank or conv_ranks")
    unit = section.dylora_unit if hasattr(ADAPTERS.get(section.adapter), "dylora_unit") else 1
    for setting in ("ranks", "conv_ranks"):
        odd = [f"{block} {rank:g}" for block, rank in sizes.get(setting, {}).items() if rank % unit]
        if odd:
            problems.append(f"method.blocks.{setting}: {', '.join(odd)}: no multiple of method.dylora_unit, {unit}")
    silent = [block for block in kept if sizes.get("alphas", {}).get(block) == 0]
    if silent:
        problems.append(f"method.blocks.alphas: 0 for {', '.join(silent)}; loaders read alpha 0 as no scaling. To leave a block out, "
                        "give it weight 0 or rank 0")  # fmt: skip
    return problems


def _is_spatial(module: nn.Module) -> bool:
    """Whether a layer is a convolution wider than one pixel."""
    return isinstance(module, nn.Conv2d) and tuple(module.kernel_size) != (1, 1)
