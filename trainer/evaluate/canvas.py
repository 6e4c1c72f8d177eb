"""A base model that is loaded once and draws with one LoRA after the other, by the trainer's own sampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events import Listener, Status, StopCheck, ignore, never

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from ..config import BaseSection
    from ..sample import Request


class Canvas:
    """A model that draws with one LoRA at a time; with none it is the base model."""

    def __init__(self, family: Any, model: Any, prompts: Any, stop: StopCheck):
        self.family, self.model, self.prompts, self.stop = family, model, prompts, stop
        self._adapters: Any = None

    def use(self, file: Path, tensors: Mapping[str, Tensor] | None = None) -> list[str]:
        """Take this file's adapters, or other tensors in its place; returns the names of those that fitted nowhere."""
        from ..adapters.files import fit_adapters, load_adapters

        self.close()
        if tensors is not None and not tensors:
            return []
        targets = [(target.key, target.module) for target in self.family.adapter_targets(self.model)]
        self._adapters, unused = load_adapters(file, targets) if tensors is None else fit_adapters(file, tensors, targets)
        self._adapters.attach()
        return unused

    def draw(self, request: Request, strength: float = 1.0) -> Image | None:
        """None after a stop."""
        from ..adapters.files import set_strength
        from ..sample import draw

        if self._adapters is not None:
            set_strength(self._adapters, strength, self.model.dtype)
        return draw(self.family, self.model, self.prompts, request, self.stop)

    def close(self) -> None:
        """Give the model back as it was."""
        if self._adapters is not None:
            self._adapters.detach()
        self._adapters = None


@contextmanager
def open_canvas(
    base: BaseSection, *, precision: str = "bf16", device: str = "auto", listen: Listener = ignore, stop: StopCheck = never
) -> Iterator[Canvas]:
    """Load the base model; its memory is given back at the end."""
    from ..families import FAMILIES, find_family, load_base
    from ..precision import DTYPES, release_memory, resolve_device
    from ..sample import Prompts

    target = resolve_device(device)
    family = find_family(base.checkpoint, base.family, FAMILIES)
    listen(Status(f"loading {family.spec.title} on {target}"))
    model = load_base(family, base, target, DTYPES[precision])
    for note in model.notes:
        listen(note)
    canvas = Canvas(family, model, Prompts(family, model), stop)
    try:
        yield canvas
    finally:
        canvas.close()
        canvas.family = canvas.model = canvas.prompts = None  # whoever opened the canvas still holds it
        del model
        release_memory(target)
