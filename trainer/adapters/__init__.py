"""Adapter algorithms. Adding one: a module with an `Adapter`, and a line in `ADAPTERS`.

Each stands here with the defaults of its options; `dataclasses.replace` sets them.
"""

from .base import Adapter, LayerShape, Tensors
from .dylora import Dylora
from .loha import T1, Loha
from .lokr import T2, Lokr
from .lora import MID, Lora

# Where a file's tensors could be of two algorithms, the first one reads it.
ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (Lora(), Loha(), Lokr(), Dylora())}
TUCKER_CORES = frozenset({MID, T1, T2})  # a layer with one of these is in Tucker form

__all__ = ["ADAPTERS", "TUCKER_CORES", "Adapter", "LayerShape", "Tensors"]
