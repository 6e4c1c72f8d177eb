"""The order in which pictures are trained on: a pure function of the seed and the epoch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..config import Size
from ..seeds import derive


def plan_epoch(buckets: Sequence[Size], repeats: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """The batches of one epoch as record indices; `buckets` and `repeats` hold one entry per record.

    Every record occurs exactly `repeats` times and no batch mixes buckets; the last batch of a bucket may be smaller.
    """
    assert len(buckets) == len(repeats), f"{len(buckets)} buckets for {len(repeats)} records"
    rng = random.Random(derive(seed, "epoch", epoch))
    members: dict[Size, list[tuple[float, int]]] = {}
    for index, (bucket, count) in enumerate(zip(buckets, repeats, strict=True)):
        # Copy j falls at a random place of the j-th of `count` equal parts of the epoch. So copies of one picture are
        # spread out and rarely meet in a batch; with one copy this is a uniform shuffle.
        places = [((copy + rng.random()) / count, index) for copy in range(count)]
        members.setdefault(bucket, []).extend(places)
    batches = []
    for bucket in sorted(members):
        order = [index for _place, index in sorted(members[bucket])]
        batches.extend(tuple(order[start : start + batch_size]) for start in range(0, len(order), batch_size))
    rng.shuffle(batches)
    return batches


def batches_per_epoch(buckets: Sequence[Size], repeats: Sequence[int], batch_size: int) -> int:
    """How many batches `plan_epoch` makes: each bucket's samples over `batch_size`, rounded up, summed."""
    samples: dict[Size, int] = {}
    for bucket, count in zip(buckets, repeats, strict=True):
        samples[bucket] = samples.get(bucket, 0) + count
    return sum(-(-count // batch_size) for count in samples.values())
