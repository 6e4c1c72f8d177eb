"""Weighting the blocks of a finished LoRA (block-weight loading), and measuring them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters.stored import StoredModule, split_modules, total_norm
from ..checkpoint import save_artefact
from ..columns import columns
from ..errors import ConfigError, ModelFileError
from ..families.block_vectors import as_text
from ..families.blocks import BlockTable, find_block_table
from .presets import Presets, read_presets
from .rules import block_ratios, check_ratios, module_ratios, parse_rules

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["BlockLine", "Presets", "WeightedLora", "read_lora", "read_presets", "save_weighted", "weight_blocks"]
ORIGIN = "lora_furnace_block_weights"  # metadata entry of re-weighted files


@dataclass(frozen=True)
class BlockLine:
    """One block of a file."""

    block: str
    modules: int
    ratios: tuple[float, ...]  # smallest and largest; one number where all modules have the same
    norm: float  # ‖ΔW‖ of all its modules as stored, before the ratios
    weighted_norm: float  # and with them
    share: float  # of the file's squared norm, as stored
    size: int  # numbers in ΔW

    @property
    def rms(self) -> float:
        """Root mean square of ΔW: comparable between blocks of different sizes."""
        return (self.norm**2 / self.size) ** 0.5 if self.size else 0.0


@dataclass(frozen=True)
class WeightedLora:
    """A file with a ratio for each of its modules."""

    table: BlockTable
    modules: list[StoredModule]
    unknown: dict[str, Tensor]  # tensors of no known kind, which are kept as they are
    blocks: dict[str, float]  # the vector by name, random numbers drawn
    ratios: dict[str, float]  # by module
    rules: tuple[str, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """What a loader is given. A module with ratio 0 is not in it."""
        scaled = {name: tensor for module in self.modules for name, tensor in module.scaled(self.ratios[module.name]).items()}
        return scaled | self.unknown

    def with_blocks(self, names: Collection[str], ratio: float) -> WeightedLora:
        """The same with another ratio for all layers of some blocks, whatever rules say of them.

        ConfigError where the kind of a layer does not know this ratio.
        """
        changed = {module.name: ratio for module in self.modules if self.table.block_of(module.name) in names}
        check_ratios(self.modules, self.ratios | changed)
        return replace(self, blocks=self.blocks | dict.fromkeys(names, ratio), ratios=self.ratios | changed)

    def notes(self) -> list[str]:
        """What a person should know about these ratios."""
        notes = []
        outside = [module.name for module in self.modules if self.table.block_of(module.name) is None]
        if outside:
            notes.append(f"{len(outside)} modules belong to no block and follow only rules, for example {outside[0]}")
        if self.unknown:
            notes.append(
                f"{len(self.unknown)} tensors are of no known adapter and stay as they are, for example {next(iter(self.unknown))}"
            )
        unmeasured = [module.name for module in self.modules if module.whole]
        if unmeasured:
            notes.append(
                f"{len(unmeasured)} modules are of a kind whose change is not measured and cannot be scaled, for example {unmeasured[0]}"
            )
        if any(module.decomposed and self.ratios[module.name] not in (0, 1) for module in self.modules):
            notes.append(
                "DoRA: the ratio scales the change of direction; the magnitudes stay as trained, except at 0, where the layer is left out"
            )
        return notes

    @cached_property
    def norms(self) -> dict[str, float | None]:
        """‖ΔW‖ by module, as stored; None where the file alone does not say it."""
        return {module.name: module.norm() for module in self.modules}

    def lines(self) -> list[BlockLine]:
        """Every block of the file in the table's order, then what belongs to none."""
        whole = total_norm(norm or 0.0 for norm in self.norms.values())
        return [self._line(name, modules, whole) for name, modules in self._by_block().items()]

    def _by_block(self) -> dict[str, list[StoredModule]]:
        found: dict[str, list[StoredModule]] = {}
        for module in self.modules:
            found.setdefault(self.table.block_of(module.name) or "-", []).append(module)
        return {name: found[name] for name in (*self.table.names, "-") if name in found}

    def _ratios(self, modules: list[StoredModule]) -> tuple[float, ...]:
        found = [self.ratios[module.name] for module in modules]
        return tuple(sorted({min(found), max(found)}))

    def _line(self, name: str, modules: list[StoredModule], whole: float) -> BlockLine:
        norms = {module.name: self.norms[module.name] or 0.0 for module in modules}
        norm = total_norm(norms.values())
        return BlockLine(
            block=name,
            modules=len(modules),
            ratios=self._ratios(modules),
            norm=norm,
            weighted_norm=total_norm(norms[module.name] * self.ratios[module.name] for module in modules),
            share=(norm / whole) ** 2 if whole else 0.0,
            size=sum(module.size() for module in modules),
        )

    def text(self, *, measured: bool = True) -> str:
        """The table for a person, with its notes; `measured` with norms, which take seconds for large files."""
        rows = [["block", "modules", "ratio"]]
        for name, modules in self._by_block().items():
            rows.append([name, f"{len(modules)}", " to ".join(f"{value:g}" for value in self._ratios(modules))])
        if measured:
            rows[0] += ["norm", "share", "rms"]
            for row, line in zip(rows[1:], self.lines(), strict=True):
                row += [f"{line.norm:.4g}", f"{line.share:.1%}", f"{line.rms:.2e}"]
        return "\n".join([f"{self.table.title}, {len(self.modules)} modules", *columns(rows), *(f"note: {note}" for note in self.notes())])

    def picture(self, title: str) -> Image:
        """The norm of each block with its ratio, as bars over the network's shape."""
        from ..evaluate.block_chart import draw_blocks

        lines = {line.block: line for line in self.lines()}
        changed = any(ratio != 1 for ratio in self.ratios.values())
        label = "norm of the change, weighted" if changed else "norm of the change"
        return draw_blocks(self.table, {name: line.weighted_norm for name, line in lines.items()}, present=lines, title=title, label=label)

    def vector(self) -> str:
        """The ratios as a text that gives them again, without randomness."""
        return as_text(self.blocks, self.table)

    def as_dict(self) -> dict[str, Any]:
        names = ("block", "modules", "ratios", "norm", "weighted_norm", "share", "rms")
        rows = [{name: getattr(line, name) for name in names} for line in self.lines()]
        return {"model": self.table.title, "blocks": rows, "modules": self.norms, "vector": self.blocks, "notes": self.notes()}


def weight_blocks(
    tensors: Mapping[str, Tensor], vector: str = "1", rules: str = "", *, presets: Presets | None = None, seed: int = 0
) -> WeightedLora:
    """Give each block of an adapter file its ratio.

    `vector` is a preset's name or a text of `trainer.families.block_vectors`, in which R and U are random numbers drawn from
    `seed`; `rules` are those of `parse_rules`. ConfigError for texts that do not fit, ModelFileError for a file without blocks.
    """
    presets = presets or read_presets()
    modules, unknown = split_modules(tensors)
    table = find_block_table(module.name for module in modules)
    blocks = block_ratios(vector, table, presets, seed)
    parsed = parse_rules(rules, table, presets, seed)
    ratios = module_ratios(modules, table, blocks, parsed)
    return WeightedLora(table, modules, {name: tensors[name] for name in unknown}, blocks, ratios, tuple(rule.text for rule in parsed))


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file. ModelFileError where it is none."""
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise ModelFileError(f"LoRA {path} is a folder; give a .safetensors file")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise ModelFileError(f"LoRA {path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"LoRA {path} cannot be read as a safetensors file: {error}") from None


def save_weighted(path: Path, lora: WeightedLora, metadata: Mapping[str, str], source: str) -> None:
    """Write the re-weighted file with its metadata and a note of its origin.

    A file that is already just this stays. ConfigError where nothing is left to save, or the file is another one.
    """
    tensors = lora.tensors()
    if not tensors:
        raise ConfigError("every block has ratio 0, so nothing would be left to save")
    origin = {"source": source, "source_hash": metadata.get("sshs_model_hash", ""), "vector": lora.blocks, "rules": list(lora.rules)}
    if path.exists():
        if read_lora(path)[1].get(ORIGIN) == json.dumps(origin):
            return
        raise ConfigError(f"{path} exists already and is something else; choose another name. Nothing was changed")
    earlier = {f"{ORIGIN}_before": metadata[ORIGIN]} if ORIGIN in metadata else {}
    save_artefact(
        path, {name: tensor.contiguous() for name, tensor in tensors.items()}, {**metadata, **earlier, ORIGIN: json.dumps(origin)}
    )
