"""What an adapter file is: model family, kind, ranks, training, tags, trigger words, and what is strange about it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters.stored import StoredModule, split_modules, total_norm
from ..columns import columns
from ..data.cache import file_digest
from ..errors import ModelFileError, TrainerError
from ..families import FAMILIES
from ..families.adapter_family import adapter_family
from ..families.blocks import BlockTable
from ..families.weights import SafetensorsFile, open_weights
from .origin import Origin, read_origin

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 3  # names in a sentence
_MIB = 2**20


@dataclass(frozen=True)
class BlockInfo:
    """The modules of one block; `ranks` and `alphas` are those that occur."""

    block: str
    modules: int
    ranks: tuple[str, ...]
    alphas: tuple[str, ...]
    norm: float  # ‖ΔW‖ at strength 1


@dataclass(frozen=True)
class LoraInfo:
    """An adapter file that was read."""

    path: Path
    family: str | None
    kinds: dict[str, int]  # what a module is -> how many are
    dtypes: dict[str, int]
    numbers: int  # how many, without alphas
    blocks: tuple[BlockInfo, ...]
    origin: Origin
    sha256: str
    hash_fits: bool | None  # whether sshs_model_hash is that of the tensors; None where there is none
    strange: tuple[str, ...]
    inputs: dict[str, int | None]  # name of a module -> width of the layer that it joins

    def lines(self) -> list[str]:
        """For a person."""
        kinds = ", ".join(f"{name} {count}" for name, count in self.kinds.items())
        lines = [
            f"file: {self.path.name}, {self.path.stat().st_size / _MIB:.1f} MiB, {', '.join(self.dtypes)}, {self.numbers:,} numbers",
            f"hashes: sha256 {self.sha256}, AutoV2 {self.sha256[:10]}{self._model_hash()}",
            f"model: {self.family or 'not recognised'}" + self.origin.named_model(),
            f"modules: {kinds}",
            *self._table(),
            *self.origin.lines(),
        ]
        return [*lines, *(f"strange: {text}" for text in self.strange)] if self.strange else [*lines, "nothing strange was found"]

    def _model_hash(self) -> str:
        stored = self.origin.metadata.get("sshs_model_hash")
        return "" if stored is None else f", AutoV3 {stored[:12]} ({'fits the tensors' if self.hash_fits else 'does NOT fit the tensors'})"

    def _table(self) -> list[str]:
        rows = [["block", "modules", "rank", "alpha", "norm"]]
        rows += [[b.block, f"{b.modules}", ", ".join(b.ranks), ", ".join(b.alphas), f"{b.norm:.4g}"] for b in self.blocks]
        return columns(rows)

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "family": self.family,
            "kinds": self.kinds,
            "dtypes": self.dtypes,
            "numbers": self.numbers,
            "blocks": [asdict(block) for block in self.blocks],
            "sha256": self.sha256,
            "hash_fits": self.hash_fits,
            "strange": list(self.strange),
            **self.origin.as_dict(),
        }


def read_info(path: Path) -> LoraInfo:
    """Look at a file. ModelFileError where it is none, is damaged, or holds no adapter."""
    file = open_weights(path)
    tensors = dict(file.read(file.shapes))
    modules, unknown = split_modules(tensors)
    origin = read_origin(file.metadata)
    if not modules:
        raise ModelFileError(f"{path} holds no adapter; its tensors start with {next(iter(tensors), 'nothing')!r}")
    family, table = adapter_family(modules, [family.spec for family in FAMILIES.values()])
    shelf = _Shelf(modules, table)
    hash_fits = _hash_fits(file) if isinstance(file, SafetensorsFile) else None
    numbers = [tensor for name, tensor in tensors.items() if not name.endswith(".alpha")]
    return LoraInfo(
        path=path,
        family=family,
        kinds=dict(Counter(module.kind for module in modules).most_common()),
        dtypes=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in numbers).most_common()),
        numbers=sum(tensor.numel() for tensor in numbers),
        blocks=tuple(shelf.block(name, own) for name, own in shelf.by_block.items()),
        origin=origin,
        sha256=file_digest(path),
        hash_fits=hash_fits,
        strange=(*shelf.strange(), *_strange_file(tensors, unknown, hash_fits, family, origin)),
        inputs={module.name: module.inputs() for module in modules},
    )


@dataclass(frozen=True)
class _Shelf:
    """Modules in the order of their blocks."""

    modules: Sequence[StoredModule]
    table: BlockTable | None

    @cached_property
    def norms(self) -> dict[str, float | None]:
        return {module.name: module.norm() for module in self.modules}

    @cached_property
    def by_block(self) -> dict[str, list[StoredModule]]:
        found: dict[str, list[StoredModule]] = {}
        for module in self.modules:
            found.setdefault((self.table.block_of(module.name) if self.table else None) or "-", []).append(module)
        return {name: found[name] for name in (*(self.table.names if self.table else ()), "-") if name in found}

    def block(self, name: str, modules: Sequence[StoredModule]) -> BlockInfo:
        ranks = sorted({module.rank for module in modules if module.rank is not None})
        whole = ["full"] if any(module.rank is None for module in modules) else []
        alphas = sorted({module.alpha for module in modules if module.alpha is not None})
        norm = total_norm(self.norms[module.name] or 0.0 for module in modules)
        return BlockInfo(name, len(modules), (*map(str, ranks), *whole), tuple(f"{alpha:g}" for alpha in alphas), norm)

    def strange(self) -> list[str]:
        """Sentences about modules that are not as a trainer leaves them."""
        broken = [module.name for module in self.modules if module.incomplete]
        silent = [name for name, norm in self.norms.items() if norm == 0]
        bare = [module.name for module in self.modules if module.rank is not None and module.alpha is None]
        strong = [
            module.name
            for module in self.modules
            if module.rank is not None and module.alpha is not None and module.alpha > 2 * module.rank
        ]
        outside = self.by_block.get("-", []) if self.table else []
        return _sentences(
            ("have only a part of their tensors and cannot be used", broken),
            ("change nothing: their ΔW is zero, they have learned nothing", silent),
            ("have no alpha; programs then take alpha = rank, so that their change counts in full", bare),
            ("have an alpha of more than twice their rank; such files are mostly too strong at strength 1", strong),
            ("belong to no block of the model", [module.name for module in outside]),
            kind="modules",
        )


def _strange_file(tensors: dict[str, Tensor], unknown: list[str], hash_fits: bool | None, family: str | None, origin: Origin) -> list[str]:
    spoilt = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(tensor.float().isfinite().all())]
    found = _sentences(
        ("hold values that are not finite (NaN or infinity): pictures turn black", spoilt),
        ("are of no known kind of adapter; programs will pass over them", unknown),
        kind="tensors",
    )
    if hash_fits is False:
        found.append("sshs_model_hash in the metadata is of other tensors: the file was changed after training, or is damaged")
    if not origin.metadata:
        found.append("there is no metadata: how it was trained is not known")
    if family is None:
        found.append("the model family is not recognised from names and shapes")
    return found


def _sentences(*cases: tuple[str, list[str]], kind: str) -> list[str]:
    return [f"{len(names)} {kind} {text}: {_some(names)}" for text, names in cases if names]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


def _hash_fits(file: SafetensorsFile) -> bool | None:
    """Whether kohya's hash in the metadata is that of the bytes behind the header."""
    stored = file.metadata.get("sshs_model_hash")
    if stored is None:
        return None
    digest = hashlib.sha256()
    with file.path.open("rb") as data:
        data.seek(file.data_start)
        while piece := data.read(_MIB):
            digest.update(piece)
    return digest.hexdigest() == stored


def fits(path: Path, checkpoint: str) -> str:
    """One sentence: whether the file fits a base model, from shapes alone."""
    import torch

    from ..adapters.files import load_adapters
    from ..config import BaseSection
    from ..families import find_family

    family = find_family(checkpoint, "auto", FAMILIES)
    model = family.load(BaseSection(checkpoint=checkpoint), torch.device("meta"), torch.float32)
    try:
        adapters, unused = load_adapters(path, [(target.key, target.module) for target in family.adapter_targets(model)])
    except TrainerError as error:
        return f"does not fit {checkpoint}, {family.spec.title}: {error}"
    more = f"; {len(unused)} tensors fit no layer, for example {unused[0]}" if unused else ", and nothing is left over"
    return f"fits {checkpoint}, {family.spec.title}: {len(adapters.layers)} modules{more}"
