"""Too little memory: how to tell, and what to do about it before giving up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from .errors import OutOfMemory, first_line
from .precision import release_memory

Result = TypeVar("Result")

# How the libraries say it where they have no exception of their own for it: CUDA, HIP and the CPU; cuBLAS and cuDNN.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library means that memory did not suffice."""
    if isinstance(error, (OutOfMemory, MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def with_room(work: Callable[[], Result], device: torch.device, doing: str) -> Result:
    """The result of `work()`, which may be done twice: again after cached memory was given back, if there was too little.

    OutOfMemory where that is not enough either; `doing` says what.
    """
    for attempt in range(2):
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        # Not in the handler: the frames of the error hold what it had allocated so far.
        release_memory(device)
        if attempt:
            break
    raise OutOfMemory(f"out of memory while {doing}: {reason}")
