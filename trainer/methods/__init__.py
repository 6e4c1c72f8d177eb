"""Training methods, by the `kind` of the configuration's `method` section."""

from __future__ import annotations

from .adapter import AdapterMethod
from .base import Method, ParameterGroup

METHODS = {"adapter": AdapterMethod}

__all__ = ["METHODS", "Method", "ParameterGroup"]
