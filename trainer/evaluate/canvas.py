"""A base model that is loaded once and draws with one LoRA, or one stack of them, after the other, by the trainer's own sampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..events import Listener, Status, StopCheck, ignore, never

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from ..adapters.inject import AdapterSet
    from ..config import BaseSection
    from ..sample import Request


class Canvas:
    """A model that draws with the LoRAs it was given; with none it is the base model."""

    def __init__(self, family: Any, model: Any, prompts: Any, stop: StopCheck):
        self.family, self.model, self.prompts, self.stop = family, model, prompts, stop
        self._sets: list[AdapterSet] = []
        self._parts: dict[str, str] = {}  # key of a layer -> part of the model

    def use(self, file: Path, tensors: Mapping[str, Tensor] | None = None) -> list[str]:
        """Take this file's adapters, or other tensors in its place; returns the names of those that fitted nowhere."""
        self.close()
        return self.add(file, tensors)

    def add(self, file: Path, tensors: Mapping[str, Tensor] | None = None) -> list[str]:
        """The same beside the adapters that are there already. ConfigError for a DoRA on top of others."""
        from ..adapters.files import fit_adapters, load_adapters
        from ..adapters.inject import AdapterSet

        found = self.family.adapter_targets(self.model)
        targets = [(target.key, target.module) for target in found]
        self._parts = {target.key: target.part for target in found}
        if tensors is None:
            adapters, unused = load_adapters(file, targets)
        else:
            adapters, unused = fit_adapters(file, tensors, targets) if tensors else (AdapterSet([]), [])
        if self._sets and any(layer.magnitude is not None for layer in adapters.layers):
            raise ConfigError(f"loras: {file.name} is a DoRA, whose change depends on the weights below it; name it first")
        adapters.attach()
        self._sets.append(adapters)
        return unused

    def set_strengths(self, strengths: Sequence[tuple[float, float]]) -> None:
        """The strength of each LoRA: in the network that draws, and in the text encoders."""
        from ..adapters.files import set_strength

        for adapters, (image, text) in zip(self._sets, strengths, strict=True):
            layers = {layer.key: image if self._parts[layer.key] == "unet" else text for layer in adapters.layers}
            set_strength(adapters, layers, self.model.dtype)

    def draw(self, request: Request, strength: float = 1.0) -> Image | None:
        """With every LoRA at one strength; None after a stop."""
        self.set_strengths([(strength, strength)] * len(self._sets))
        return self.paint(request)

    def paint(self, request: Request) -> Image | None:
        """At the strengths that are set; None after a stop."""
        from ..sample import draw

        return draw(self.family, self.model, self.prompts, request, self.stop)

    def close(self) -> None:
        """Give the model back as it was."""
        for adapters in self._sets:
            adapters.detach()
        self._sets = []


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
