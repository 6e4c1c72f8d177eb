"""DyLoRA (Valipour et al. 2022, arXiv 2210.07558): a LoRA whose first ranks are a LoRA of their own, for every number of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .base import Tensors
from .lora import DOWN, MID, UP, Lora


@dataclass(frozen=True)
class Dylora(Lora):
    """A training step uses the first b ranks alone, b drawn evenly from the multiples of `dylora_unit`.

    The scale stays alpha/rank whatever b is (the paper divides by b), so that the first b ranks with alpha · b/rank are, in a
    file of their own, exactly what was trained. The saved file is an ordinary LoRA of the full rank.
    """

    dylora_unit: int = 4

    name = "dylora"

    def active(self, tensors: Tensors, draw: float) -> Tensors:
        rank = self.rank_of(tensors)
        return first_ranks(tensors, min(rank, self.dylora_unit * (1 + int(draw * ceil(rank / self.dylora_unit)))))


def first_ranks(tensors: Tensors, count: int) -> Tensors:
    """The LoRA of the first `count` ranks."""
    cuts = {DOWN: (slice(count),), MID: (slice(count), slice(count)), UP: (slice(None), slice(count))}
    return {name: tensor[cuts[name]] for name, tensor in tensors.items()}
