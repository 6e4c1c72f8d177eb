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


def epoch_repeats(buckets: Sequence[Size], repeats: Sequence[int], regularization: Sequence[bool], seed: int, epoch: int) -> list[int]:
    """How often each record occurs in one epoch: regularization pictures together as often as all others together.

    Each bucket gives them a fixed share, so that every epoch has the same number of batches, and goes through its own in an
    order that follows from the seed, each epoch where the one before ended: where there are too few they repeat evenly,
    where there are too many all have their turn over the epochs. A bucket gives at least one, so with more buckets of
    them than samples to learn from, there are as many as buckets.
    """
    result = [0 if general else count for count, general in zip(repeats, regularization, strict=True)]
    pools: dict[Size, list[int]] = {}
    for index, general in enumerate(regularization):
        if general:
            pools.setdefault(buckets[index], []).extend([index] * repeats[index])
    shares = _shares({bucket: len(pool) for bucket, pool in pools.items()}, sum(result))
    for bucket, pool in pools.items():
        random.Random(derive(seed, "regularization", *bucket)).shuffle(pool)
        for place in range(epoch * shares[bucket], (epoch + 1) * shares[bucket]):
            result[pool[place % len(pool)]] += 1
    return result


def _shares(sizes: dict[Size, int], wanted: int) -> dict[Size, int]:
    """`wanted` divided in proportion to the sizes by largest remainders, at least one each."""
    total = sum(sizes.values())
    shares = {bucket: max(1, wanted * size // total) for bucket, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda bucket: (-(wanted * sizes[bucket] % total), bucket))
    for bucket in by_remainder[: max(0, wanted - sum(shares.values()))]:
        shares[bucket] += 1
    while sum(shares.values()) > max(wanted, len(shares)):
        shares[max(shares, key=lambda bucket: (shares[bucket], bucket))] -= 1
    return shares


def batches_per_epoch(buckets: Sequence[Size], repeats: Sequence[int], batch_size: int) -> int:
    """How many batches `plan_epoch` makes: each bucket's samples over `batch_size`, rounded up, summed."""
    samples: dict[Size, int] = {}
    for bucket, count in zip(buckets, repeats, strict=True):
        samples[bucket] = samples.get(bucket, 0) + count
    return sum(-(-count // batch_size) for count in samples.values())
