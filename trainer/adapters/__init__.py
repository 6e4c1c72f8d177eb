"""Adapter algorithms. Adding one: a module with an `Adapter`, and a line in `ADAPTERS`."""

from .base import Adapter, LayerShape, Tensors
from .lora import Lora

ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (Lora(),)}

__all__ = ["ADAPTERS", "Adapter", "LayerShape", "Tensors"]
