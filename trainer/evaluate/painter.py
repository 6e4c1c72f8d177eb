"""Drawing cells with the trainer's own sampler: the base model stays loaded, LoRA files come and go."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.cache import file_digest
from ..events import Listener, StopCheck, Warned
from ..files import from_home
from .canvas import Canvas, open_canvas
from .cells import Cell

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..config import BaseSection


class TrainerPainter:
    """A `Painter`. Nothing is loaded before the first picture; `close` gives the memory back."""

    def __init__(self, base: BaseSection, precision: str, device: str, listen: Listener):
        from ..precision import resolve_device

        self._base, self._precision, self._device, self._listen = base, precision, resolve_device(device), listen
        self._open = ExitStack()
        self._canvas: Canvas
        self._checkpoint: str | None = None
        self._files: tuple[tuple[Path, str], ...] = ()
        self._told: set[Path] = set()

    def identity(self, cell: Cell) -> Any:
        base = self._base_of(cell)
        files = [base.checkpoint, base.vae, *(lora.file for lora in base.loras)]
        plain = base.model_dump(exclude={"checkpoint", "vae", "tokenizer"})
        return ["trainer", [_digests(file) for file in files if file], plain, self._precision, self._device.type]

    def draw(self, cell: Cell, stop: StopCheck) -> Image | None:
        canvas = self.use(cell)
        canvas.stop = stop
        return canvas.paint(cell.request)

    def use(self, cell: Cell) -> Canvas:
        """The model with the cell's LoRAs at their strengths; loads only what differs from the cell before."""
        base = self._base_of(cell)
        if base.checkpoint != self._checkpoint:
            self.close()
            options = {"precision": self._precision, "device": str(self._device), "listen": self._listen}
            self._canvas = self._open.enter_context(open_canvas(base, **options))
            self._checkpoint = base.checkpoint
        if cell.files() != self._files:
            self._attach(cell)
        self._canvas.set_strengths([(use.strength, use.text_strength) for use in cell.loras])
        return self._canvas

    def close(self) -> None:
        self._checkpoint, self._files = None, ()
        self._open.close()

    def _base_of(self, cell: Cell) -> BaseSection:
        return self._base.model_copy(update={"checkpoint": cell.checkpoint}) if cell.checkpoint else self._base

    def _attach(self, cell: Cell) -> None:
        """Take the adapters of these files, one set on top of the other."""
        from ..adapters.files import read_tensors
        from ..block_weights import weight_blocks

        self._canvas.close()
        for file, blocks in cell.files():
            unused = self._canvas.add(file, weight_blocks(read_tensors(file), blocks).tensors() if blocks else None)
            if unused and file not in self._told:
                self._told.add(file)
                self._listen(Warned(f"{file.name}: {len(unused)} tensors fit no layer of this model, for example {unused[0]}"))
        self._files = cell.files()


def _digests(path: str) -> list[str]:
    """Of a file, or of all files of a folder: a model that was changed in place is another model."""
    given = from_home(path)
    files = [given] if given.is_file() else sorted(file for file in given.rglob("*") if file.is_file())
    return [file_digest(file) for file in files]
