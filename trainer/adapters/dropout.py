"""Dropout of adapters: of their inputs, of ranks, of whole layers. Everything drawn is a function of seeds and the layer's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..seeds import derive


@dataclass(frozen=True)
class DropoutRates:
    """Shares, from 0 (off) to below 1."""

    inputs: float = 0.0
    ranks: float = 0.0
    layers: float = 0.0


@dataclass(frozen=True)
class Drops:
    """What one layer's adapter drops in one micro-batch."""

    seed: int
    inputs: float = 0.0
    ranks: Tensor | None = None  # (B, rank) factors: 0, or 1 / (1 - rate) where the rank is kept
    whole: bool = False

    def of(self, x: Tensor) -> Tensor:
        """Inputs of any shape with a share of the numbers zero and the others scaled up, so that the mean stays.

        A pass that is computed again, as gradient checkpointing does, drops the same numbers.
        """
        if not self.inputs:
            return x
        generator = torch.Generator(x.device).manual_seed(self.seed)
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.inputs
        return x * kept.to(x.dtype).mul_(1 / (1 - self.inputs))


def draw_drops(rates: DropoutRates, layers: Sequence[tuple[str, int]], seeds: Sequence[int], device: torch.device) -> list[Drops]:
    """The drops of layers (key, rank) for a micro-batch whose samples have these seeds.

    Ranks are dropped for each sample by itself, inputs and layers follow from the first sample's seed.
    """
    ranks = _ranks(rates.ranks, [rank for _, rank in layers], seeds, device) if rates.ranks else [None] * len(layers)
    return [
        Drops(
            seed=derive(seeds[0], "input dropout", key),
            inputs=rates.inputs,
            ranks=kept,
            whole=derive(seeds[0], "layer dropout", key) < rates.layers * 2**63,
        )
        for (key, _), kept in zip(layers, ranks, strict=True)
    ]


def _ranks(rate: float, ranks: list[int], seeds: Sequence[int], device: torch.device) -> list[Tensor]:
    """Factors (B, rank) for each layer, drawn and copied to the device at once."""
    generators = [torch.Generator().manual_seed(derive(seed, "rank dropout")) for seed in seeds]
    drawn = torch.stack([torch.rand(sum(ranks), generator=generator) for generator in generators])
    factors = (drawn >= rate).float() / (1 - rate)
    return list(factors.to(device, non_blocking=True).split(ranks, dim=1))
