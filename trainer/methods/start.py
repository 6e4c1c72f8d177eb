"""Starting from a saved adapter file instead of from nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..adapters import TUCKER_CORES, Adapter
from ..adapters.dora import MAGNITUDE
from ..adapters.files import load_adapters
from ..adapters.inject import AdapterLayer
from ..config import AdapterSection
from ..families import AdapterTarget
from ..files import from_home
from .block_plan import Place


@dataclass(frozen=True)
class Start:
    """The layers that a file gives, by saved name, and what of the file or of the settings goes unused."""

    layers: dict[str, AdapterLayer] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def algorithms(self) -> list[Adapter]:
        """One of each kind in the file."""
        return list({layer.adapter.name: layer.adapter for layer in self.layers.values()}.values())


def read_start(section: AdapterSection, adapter: Adapter, placed: Sequence[tuple[AdapterTarget, Place]]) -> Start:
    """The layers of `method.continue_from` among those that are trained; ModelFileError where it is for another model."""
    if not section.continue_from:
        return Start()
    file = from_home(section.continue_from)
    loaded, unused = load_adapters(file, [(target.key, target.module) for target, _ in placed])
    places = {target.key: place for target, place in placed}
    other = []
    for layer in loaded.layers:
        if set(layer.parts()) in adapter.layouts:
            layer.adapter = adapter  # algorithms that share their tensors' names differ in how they train
        place = places[layer.key]
        wanted = (adapter.name, place.rank, place.alpha, section.dora)
        found = (layer.adapter.name, layer.adapter.rank_of(layer.parts()) or place.rank, layer.alpha, MAGNITUDE in layer.tensors)
        other += [found] if found != wanted else []
    warnings = []
    if other:
        name, rank, alpha, dora = other[0]
        example = f"{name}{' with DoRA' if dora else ''} of rank {rank} and alpha {alpha:g}"
        warnings.append(f"method.continue_from: {len(other)} layers stay as the file has them, not as the settings say, such as {example}")
    if unused:
        warnings.append(
            f"method.continue_from: {len(unused)} tensors of {file} belong to no layer that is trained and will not be in the new "
            f"file, for example {unused[0]}"
        )
    return Start({layer.key: layer for layer in loaded.layers}, warnings)


def as_found(section: AdapterSection, layers: Sequence[AdapterLayer]) -> AdapterSection:
    """The settings that say of the layers what they are, for a file's metadata: of several algorithms the commonest."""
    ((algorithm, _),) = Counter(layer.adapter.name for layer in layers).most_common(1)
    names = {name for layer in layers for name in layer.tensors}
    return section.model_copy(update={"adapter": algorithm, "dora": MAGNITUDE in names, "tucker": not names.isdisjoint(TUCKER_CORES)})


def common_size(layers: Sequence[AdapterLayer]) -> dict[str, Any]:
    """The rank and alpha that all layers share, or kohya's word for several, for a file's metadata."""
    ranks = {layer.adapter.rank_of(layer.parts()) for layer in layers}
    alphas = {layer.alpha for layer in layers}
    return {
        "network_dim": ranks.pop() if len(ranks) == 1 else "Dynamic",
        "network_alpha": alphas.pop() if len(alphas) == 1 else "Dynamic",
    }
