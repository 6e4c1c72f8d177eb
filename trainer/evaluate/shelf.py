"""Where the drawn pictures of a grid are kept: in memory, or in a folder, from which an interrupted grid takes them again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..files import replacing
from .cells import Cell
from .infotext import infotext

if TYPE_CHECKING:
    from PIL.Image import Image

_MARK = "lora_furnace_cell"  # metadata entry: the fingerprint, and the settings as JSON


class Shelf(Protocol):
    """Pictures by fingerprint."""

    def has(self, mark: str) -> bool: ...

    def get(self, mark: str) -> Image | None: ...

    def put(self, mark: str, cell: Cell, name: str, picture: Image) -> None:
        """Keep a picture; `name` says to a person which it is."""
        ...


class MemoryShelf:
    """Keeps pictures as long as it lives."""

    def __init__(self) -> None:
        self._pictures: dict[str, Image] = {}

    def has(self, mark: str) -> bool:
        return mark in self._pictures

    def get(self, mark: str) -> Image | None:
        return self._pictures.get(mark)

    def put(self, mark: str, cell: Cell, name: str, picture: Image) -> None:  # noqa: ARG002
        self._pictures[mark] = picture


class FolderShelf:
    """Each picture as a PNG with its settings in its metadata; those found in the folder count as drawn.

    `texts` are further entries, such as ComfyUI's graph under "prompt" and "workflow". `model` is the checkpoint of cells
    that name none.
    """

    def __init__(self, folder: Path, texts: Mapping[str, str] | None = None, model: Path | None = None):
        self._folder, self._texts, self._model = folder, dict(texts or {}), model
        self._paths = {mark: path for path in sorted(folder.glob("*.png")) if (mark := mark_of(path))}

    def has(self, mark: str) -> bool:
        return mark in self._paths

    def get(self, mark: str) -> Image | None:
        from PIL import Image as Images

        if mark not in self._paths:
            return None
        with Images.open(self._paths[mark]) as picture:
            return picture.convert("RGB")

    def path_of(self, mark: str, name: str) -> Path:
        """Where a picture of this fingerprint and name is kept."""
        return self._folder / f"{_file_name(name)}_{mark[:8]}.png"

    def put(self, mark: str, cell: Cell, name: str, picture: Image) -> None:
        from PIL.PngImagePlugin import PngInfo

        model = Path(cell.checkpoint) if cell.checkpoint else self._model
        entries = {_MARK: json.dumps({"fingerprint": mark, **cell.as_dict()}, ensure_ascii=False), "parameters": infotext(cell, model)}
        info = PngInfo()
        for key, text in {**entries, **self._texts}.items():
            latin = text.isascii()
            info.add_text(key, text) if latin else info.add_itxt(key, text)
        path = self.path_of(mark, name)
        with replacing(path, durable=False) as temporary:
            picture.save(temporary, format="png", pnginfo=info)
        self._paths[mark] = path


def mark_of(path: Path) -> str | None:
    """The fingerprint in a picture of ours; None for any other file, and for one that is damaged."""
    from PIL import Image as Images

    try:
        with Images.open(path) as picture:
            return str(json.loads(picture.info[_MARK])["fingerprint"])
    except (OSError, SyntaxError, KeyError, ValueError, TypeError):
        return None


def _file_name(text: str) -> str:
    """Letters and digits of any script, dots and signs that every system allows in names."""
    return re.sub(r"[^\w.+=-]+", "_", text).strip("._")[:100]
