"""Batch plans: exact counts, no mixed buckets, a pure function of seed and epoch."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from trainer.data.sampler import batches_per_epoch, epoch_repeats, plan_epoch

SQUARE, WIDE, TALL = (512, 512), (640, 384), (384, 640)
BUCKETS = [SQUARE, WIDE, SQUARE, TALL, WIDE, SQUARE, SQUARE]
REPEATS = [1, 3, 10, 2, 1, 4, 1]
BUCKETS_OF_TWO = [SQUARE] * 40 + [WIDE] * 40


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_every_record_occurs_exactly_its_repeats_and_no_batch_mixes_buckets(batch_size):
    plan = plan_epoch(BUCKETS, REPEATS, batch_size, seed=1, epoch=0)
    assert Counter(index for batch in plan for index in batch) == dict(enumerate(REPEATS))
    for batch in plan:
        assert 1 <= len(batch) <= batch_size
        assert len({BUCKETS[index] for index in batch}) == 1
    # square 1+10+4+1 = 16, wide 3+1 = 4, tall 2 samples, each rounded up to whole batches
    assert len(plan) == sum(-(-samples // batch_size) for samples in (16, 4, 2))
    assert batches_per_epoch(BUCKETS, REPEATS, batch_size) == len(plan)


def test_same_seed_same_plan_and_no_global_randomness():
    random.seed(1)
    state = random.getstate()
    first = plan_epoch(BUCKETS, REPEATS, 2, seed=5, epoch=3)
    assert random.getstate() == state
    random.seed(99)
    assert plan_epoch(BUCKETS, REPEATS, 2, seed=5, epoch=3) == first


def test_epochs_and_seeds_differ():
    buckets, repeats = [SQUARE] * 20, [1] * 20
    plans = [tuple(plan_epoch(buckets, repeats, 2, seed, epoch)) for seed in (1, 2) for epoch in range(10)]
    assert len(set(plans)) == len(plans)


def test_buckets_take_turns_within_an_epoch():
    """Of 40 batches of one of two buckets each, chance begins about 20 runs of one bucket."""
    for seed in range(5):
        sides = [BUCKETS_OF_TWO[batch[0]] for batch in plan_epoch(BUCKETS_OF_TWO, [1] * 80, 2, seed, epoch=0)]
        changes = sum(before != after for before, after in zip(sides, sides[1:], strict=False))
        assert 8 < changes < 32


def test_every_picture_is_first_about_equally_often():
    firsts = Counter(plan_epoch([SQUARE] * 4, [1] * 4, 1, seed=0, epoch=epoch)[0][0] for epoch in range(800))
    # 800 draws of 4: mean 200, standard deviation sqrt(800 * 1/4 * 3/4) = 12.2; five deviations
    assert all(abs(firsts[index] - 200) < 62 for index in range(4))


def test_copies_of_a_picture_rarely_share_a_batch():
    # 10 pictures x 10 copies in batches of 2. A plain shuffle pairs a picture with itself with probability 9/99: in
    # 4.5 of 50 batches; spread copies meet only where two of the ten parts touch.
    plans = [plan_epoch([SQUARE] * 10, [10] * 10, 2, seed=1, epoch=epoch) for epoch in range(20)]
    together = sum(first == second for plan in plans for first, second in plan)
    assert together / 20 < 1.5


def test_no_records_no_batches():
    assert plan_epoch([], [], 4, seed=1, epoch=0) == []
    assert batches_per_epoch([], [], 4) == 0


def test_without_regularization_the_repeats_stay():
    assert epoch_repeats(BUCKETS, REPEATS, [False] * 7, seed=1, epoch=5) == REPEATS


@pytest.mark.parametrize(("pictures", "wanted"), [(3, 10), (10, 10), (7, 3), (50, 12), (1, 4)])
def test_regularization_is_as_frequent_as_the_rest_and_evenly_used(pictures, wanted):
    buckets, repeats = [SQUARE] * (pictures + 1), [wanted] + [1] * pictures
    general = [False] + [True] * pictures
    epochs = [epoch_repeats(buckets, repeats, general, seed=3, epoch=epoch) for epoch in range(60)]
    for result in epochs:
        assert result[0] == wanted and sum(result[1:]) == wanted
        assert max(result[1:]) - min(result[1:]) <= 1
    # After any number of epochs, no picture is more than one use ahead of another: none is ignored.
    for count in range(1, 60):
        totals = [sum(column) for column in zip(*(result[1:] for result in epochs[:count]), strict=True)]
        assert max(totals) - min(totals) <= 1


def test_another_seed_begins_with_other_regularization_pictures():
    first = {tuple(epoch_repeats([SQUARE] * 21, [3] + [1] * 20, [False] + [True] * 20, seed, epoch=0)) for seed in range(10)}
    assert len(first) > 5


def test_regularization_of_several_buckets_gives_every_epoch_as_many_batches():
    buckets = [SQUARE, SQUARE, WIDE] + [SQUARE] * 11 + [WIDE] * 5 + [TALL]
    repeats, general = [4, 3, 2] + [1] * 17, [False] * 3 + [True] * 17
    batches, used = set(), Counter()
    for epoch in range(40):
        result = epoch_repeats(buckets, repeats, general, seed=1, epoch=epoch)
        assert sum(result[3:]) == 9
        batches.add(len(plan_epoch(buckets, result, 2, seed=1, epoch=epoch)))
        used.update({index: count for index, count in enumerate(result) if general[index]})
    assert len(batches) == 1
    # 9 x 11/17 = 5.8, 9 x 5/17 = 2.6, 9 x 1/17 = 0.5: shares 5 + 2 + 1, and one more for the largest remainder
    assert {sum(used[index] for index in range(3, 14)), sum(used[index] for index in range(14, 19)), used[19]} == {40 * 6, 40 * 2, 40}
    assert all(used[index] > 0 for index in range(3, 20))


def test_repeats_weigh_regularization_pictures_among_themselves():
    result = epoch_repeats([SQUARE] * 3, [8, 3, 1], [False, True, True], seed=1, epoch=0)
    assert result == [8, 6, 2]


def test_more_buckets_of_regularization_than_samples_to_learn_from_give_one_each():
    assert epoch_repeats([SQUARE, SQUARE, WIDE, TALL], [1, 1, 1, 1], [False, True, True, True], seed=1, epoch=9) == [1, 1, 1, 1]
