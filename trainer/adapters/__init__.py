"""Adapter algorithms. Adding one: a module with an `Adapter`, and a line in `ADAPTERS`.

Each stands here with the defaults of its options; `dataclasses.replace` sets them.
"""

from .base import Adapter, LayerShape, Tensors
from .dylora import Dylora
from .loha import Loha
from .lokr import Lokr
from .lora import Lora

# Where a file's tensors could be of two algorithms, the first one reads it.
ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (Lora(), Loha(), Lokr(), Dylora())}

__all__ = ["ADAPTERS", "Adapter", "LayerShape", "Tensors"]
