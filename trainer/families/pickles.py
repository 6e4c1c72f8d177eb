"""Reading what torch.save wrote without running code from it, also where a training program left objects of its own inside.

Old checkpoints hold callbacks and settings of PyTorch Lightning and OmegaConf beside their weights. torch's weights-only loading
refuses any class that it does not know. Here such classes are replaced by stand-ins that do nothing; the real ones are never
imported. Whatever else is not a weight is refused as before.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

_FOREIGN = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.", "typing.")
_PLAIN = {"_codecs.encode", "collections.defaultdict", *(f"builtins.{name}" for name in ("dict", "list", "int", "float", "str", "bool"))}
_REFUSED = re.compile(r"Unsupported global: GLOBAL (\S+) ")
_MOST = 100  # different classes in one file


class _StandIn:
    """Takes whatever a pickle gives to a class, and forgets it."""

    def __new__(cls, *_arguments: Any) -> _StandIn:
        return object.__new__(cls)

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def load_weights(path: Path) -> Any:
    """What torch.load gives for a file of weights, on the CPU. UnpicklingError for a file that holds what could run."""
    import torch

    stand_ins: dict[str, type] = {}
    while True:
        try:
            with _allowed(stand_ins):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            found = _REFUSED.search(str(error))
            name = found[1] if found else ""
            name = name if "." in name else f"builtins.{name}"  # torch leaves this module's name out
            if name in stand_ins or len(stand_ins) == _MOST or not (name.startswith(_FOREIGN) or name in _PLAIN):
                raise
            module, _, own = name.rpartition(".")
            stand_ins[name] = type(own, (_StandIn,), {"__module__": module, "__qualname__": own})


def _allowed(stand_ins: dict[str, type]) -> AbstractContextManager[None]:
    """torch keeps its list for the process; these classes are on it while a file is read, and harm nobody who reads another."""
    import torch

    return torch.serialization.safe_globals(list(stand_ins.values())) if stand_ins else nullcontext()
