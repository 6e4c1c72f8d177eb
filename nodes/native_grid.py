"""Drawing the pictures of a grid with ComfyUI's own models and sampler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from ..trainer.block_weights import weight_blocks
from ..trainer.evaluate.cells import Cell, LoraUse
from ..trainer.events import StopCheck
from ..trainer.sample import Request
from . import host, pictures
from .fingerprint import fingerprint


class NativePainter:
    """A `Painter`: each cell is what Load LoRA (one after the other), KSampler and VAE Decode give.

    `origin` says where the models come from, for the fingerprints; with None, no picture counts as drawn before.
    """

    def __init__(self, model: Any, clip: Any, vae: Any, origin: str | None = None):
        self._given = (model, clip, vae)
        self._origin = origin
        self._checkpoint, self._loaded = "", self._given
        self._files: dict[tuple[Path, str], Any] = {}
        self._uses: tuple[LoraUse, ...] | None = None
        self._patched: tuple[Any, Any] = (model, clip)
        self._texts: dict[str, Any] = {}

    def identity(self, cell: Cell) -> Any:
        if cell.checkpoint:
            return ["comfyui", fingerprint([Path(cell.checkpoint)])]
        return None if self._origin is None else ["comfyui", self._origin]

    def draw(self, cell: Cell, stop: StopCheck) -> Image.Image | None:
        if stop():
            return None
        self._use(cell)
        return draw_native(*self._patched, self._loaded[2], cell.request, self._encoded)

    def _use(self, cell: Cell) -> None:
        """Load and patch only what differs from the cell before."""
        if cell.checkpoint != self._checkpoint:
            self._checkpoint, self._uses = cell.checkpoint, None
            self._loaded = host.load_checkpoint(Path(cell.checkpoint)) if cell.checkpoint else self._given
        if cell.loras == self._uses:
            return
        self._files = {key: self._files.get(key) or _tensors(*key) for key in cell.files()}
        self._patched = self._loaded[:2]
        for use in cell.loras:
            self._patched = host.apply_lora(*self._patched, self._files[use.file, use.blocks], use.strength, use.text_strength)
        self._uses, self._texts = cell.loras, {}

    def _encoded(self, clip: Any, text: str) -> Any:
        if text not in self._texts:
            self._texts[text] = host.encode_text(clip, text)
        return self._texts[text]


def draw_native(model: Any, clip: Any, vae: Any, request: Request, encode: Callable[[Any, str], Any] | None = None) -> Image.Image:
    """What CLIP Text Encode, KSampler and VAE Decode give; `encode` where texts are encoded already."""
    positive, negative = ((encode or host.encode_text)(clip, text) for text in (request.prompt, request.negative))
    settings = host.SamplerSettings(*request.size, request.seed, request.steps, request.cfg, request.sampler, request.scheduler)
    return pictures.from_tensor(host.decode(vae, host.sample(model, positive, negative, settings))[0])


def _tensors(file: Path, blocks: str) -> Any:
    lora = host.load_lora(file)
    return weight_blocks(lora, blocks).tensors() if blocks else lora
