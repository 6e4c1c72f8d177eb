"""Dropout of adapters: of single numbers, of ranks, of whole layers. What is drawn for a sample follows from its seed and the layer's key.

So it does not matter in which portions, or by which of several processes, the samples of a batch go through the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..seeds import derive


@dataclass(frozen=True)
class DropoutRates:
    """Shares, from 0 (off) to below 1."""

    numbers: float = 0.0
    ranks: float = 0.0
    layers: float = 0.0


@dataclass(frozen=True)
class Drops:
    """What one layer's adapter drops in one micro-batch of B samples, each of which has as many rows of a layer's input as the others."""

    seeds: tuple[int, ...]  # one per sample, this layer's own
    numbers: float = 0.0
    ranks: Tensor | None = None  # (B, rank) factors: 0, or 1 / (1 - rate) where the rank is kept
    whole: bool = False  # all samples do without the adapter
    without: Tensor | None = None  # (B,) bool: which do, where some do

    def of(self, x: Tensor) -> Tensor:
        """Rows of any shape with a share of the numbers zero and the others scaled up, so that the mean stays.

        The rows of a sample, such as the parts of a long caption, lose the same, however many there are. A pass that is
        computed again, as gradient checkpointing does, drops the same numbers.
        """
        if not self.numbers:
            return x
        generators = [torch.Generator(x.device).manual_seed(seed) for seed in self.seeds]
        drawn = torch.stack([torch.rand(x.shape[1:], generator=generator, device=x.device) for generator in generators])
        factors = (drawn >= self.numbers).to(x.dtype).mul_(1 / (1 - self.numbers))
        return x * by_row(factors, x)

    def choose(self, changed: Tensor, plain: Callable[[], Tensor]) -> Tensor:
        """The layer's output with the adapter, and that without it for the samples that do without."""
        if self.without is None:
            return changed
        return torch.where(by_row(self.without, changed).view(-1, *[1] * (changed.dim() - 1)), plain(), changed)


def by_row(values: Tensor, rows: Tensor) -> Tensor:
    """One value for each row of a layer's input or output, out of (B, …) values for the samples that the rows belong to."""
    return values if len(values) == len(rows) else values.repeat_interleave(len(rows) // len(values), dim=0, output_size=len(rows))


def draw_drops(rates: DropoutRates, layers: Sequence[tuple[str, int]], seeds: Sequence[int], device: torch.device) -> list[Drops]:
    """The drops of layers (key, rank) for a micro-batch whose samples have these seeds."""
    ranks = _ranks(rates.ranks, [rank for _, rank in layers], seeds, device) if rates.ranks else [None] * len(layers)
    left_out = [[derive(seed, "layer dropout", key) < rates.layers * 2**63 for seed in seeds] for key, _ in layers if rates.layers]
    left_out = left_out or [[False]] * len(layers)
    some = [any(row) and not all(row) for row in left_out]
    rows = iter(_moved([row for row, mixed in zip(left_out, some, strict=True) if mixed], device))
    return [
        Drops(
            seeds=tuple(derive(seed, "dropout", key) for seed in seeds) if rates.numbers else (),
            numbers=rates.numbers,
            ranks=kept,
            whole=all(row),
            without=next(rows) if mixed else None,
        )
        for (key, _), kept, row, mixed in zip(layers, ranks, left_out, some, strict=True)
    ]


def _moved(rows: list[list[bool]], device: torch.device) -> Iterable[Tensor]:
    """All rows copied to the device at once."""
    return torch.tensor(rows).to(device, non_blocking=True).unbind() if rows else ()


def _ranks(rate: float, ranks: list[int], seeds: Sequence[int], device: torch.device) -> list[Tensor]:
    """Factors (B, rank) for each layer, drawn and copied to the device at once."""
    generators = [torch.Generator().manual_seed(derive(seed, "rank dropout")) for seed in seeds]
    drawn = torch.stack([torch.rand(sum(ranks), generator=generator) for generator in generators])
    factors = (drawn >= rate).float() / (1 - rate)
    return list(factors.to(device, non_blocking=True).split(ranks, dim=1))
