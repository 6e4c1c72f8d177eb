"""One picture of a grid as a value: which model, which LoRAs, what is asked of the sampler; and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..data.cache import file_digest

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..events import StopCheck
    from ..sample import Request

_VERSION = 1  # of the arithmetic: another one makes every stored picture outdated


@dataclass(frozen=True)
class LoraUse:
    """A LoRA file at a strength; `strength_clip` is that of the text encoders where it differs."""

    file: Path
    strength: float = 1.0
    strength_clip: float | None = None
    blocks: str = ""  # a vector of block weights; empty: the file as it is

    @property
    def text_strength(self) -> float:
        return self.strength if self.strength_clip is None else self.strength_clip

    @property
    def acts(self) -> bool:
        return bool(self.strength or self.text_strength)


@dataclass(frozen=True)
class Cell:
    """One picture. `checkpoint` is empty for the model that the painter was given."""

    request: Request
    loras: tuple[LoraUse, ...] = ()
    checkpoint: str = ""

    def plain(self) -> Cell:
        """The same picture said in the one way that equal pictures share: without LoRAs that do nothing."""
        uses = tuple(replace(use, strength_clip=use.text_strength) for use in self.loras if use.acts)
        return replace(self, loras=uses)

    def files(self) -> tuple[tuple[Path, str], ...]:
        """What has to be read for it besides the model: files and their block weights."""
        return tuple((use.file, use.blocks) for use in self.loras)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the picture's metadata, with the LoRAs' digests."""
        loras = [asdict(use) | {"file": use.file.name, "sha256": file_digest(use.file)} for use in self.loras]
        return {"checkpoint": Path(self.checkpoint).name, "loras": loras, "request": asdict(self.request)}


class Painter(Protocol):
    """What draws cells. It keeps the model between them, so that neighbours that share it cost nothing more."""

    def identity(self, cell: Cell) -> Any:
        """What decides the picture besides the cell's own values and its LoRAs' contents, as plain values; None if that is unknown."""
        ...

    def draw(self, cell: Cell, stop: StopCheck) -> Image | None:
        """The picture, or None when `stop()` became true."""
        ...


def fingerprint(cell: Cell, identity: Any) -> str:
    """Equal for cells that give the same picture: over contents of files, not their names."""
    loras = [(file_digest(use.file), use.strength, use.text_strength, use.blocks) for use in cell.loras]
    text = json.dumps([_VERSION, identity, loras, asdict(cell.request)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def cheapest_order(cells: list[Cell]) -> list[Cell]:
    """Each distinct cell once, so that the model changes least often, then the LoRA files, then their strengths."""

    def rank(of: Callable[[Cell], Any]) -> dict[Any, int]:
        return {value: number for number, value in enumerate(dict.fromkeys(of(cell) for cell in cells))}

    keys: tuple[Callable[[Cell], Any], ...] = (lambda cell: cell.checkpoint, Cell.files, lambda cell: cell.loras)
    ranks = [(key, rank(key)) for key in keys]
    return sorted(dict.fromkeys(cells), key=lambda cell: [known[key(cell)] for key, known in ranks])
