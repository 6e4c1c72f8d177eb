"""Buckets: counts known from kohya's trainer, and properties that must hold for every picture size."""

from __future__ import annotations

import math
import random

import pytest

from trainer.config import BucketSection, DatasetSection
from trainer.data.buckets import bucket_table, check_buckets, enlarged, obstacle, place, share_kept
from trainer.errors import ConfigError, DatasetError


def dataset(resolution=(512, 512), **buckets):
    return DatasetSection(folders=({"path": "x"},), resolution=resolution, buckets=BucketSection(**buckets))


@pytest.mark.parametrize(
    ("resolution", "low", "high", "count"),
    [(512, 256, 1024, 17), (768, 256, 1024, 19), (768, 256, 2048, 41), (1024, 256, 1024, 25), (1024, 256, 2048, 41)],
)
def test_table_has_as_many_buckets_as_kohyas_trainer(resolution, low, high, count):
    assert len(bucket_table((resolution, resolution), low, high, 64)) == count


@pytest.mark.parametrize("resolution", [(512, 512), (768, 768), (1024, 1024), (512, 768), (640, 448), (600, 600)])
@pytest.mark.parametrize("step", [8, 32, 64])
def test_table_keeps_step_limits_and_area(resolution, step):
    table = bucket_table(resolution, None, None, step)
    assert len(set(table)) == len(table)
    for width, height in table:
        assert width % step == height % step == 0
        assert min(resolution) // 2 <= min(width, height)
        assert max(width, height) <= 2 * max(resolution)
        assert width * height <= resolution[0] * resolution[1]
        assert (height, width) in table


def test_default_limits_let_a_long_bucket_keep_the_area():
    # kohya's fixed limit of 1024 gives 512x1024, half the area, at 1024x1024
    assert (512, 2048) in bucket_table((1024, 1024), None, None, 64)


def test_the_limits_of_a_resolution_that_is_no_square():
    """Half the shorter side and twice the longer: 256 x 1536 has all of the area of 512 x 768."""
    table = bucket_table((512, 768), None, None, 64)
    assert {(256, 1536), (1536, 256)} <= set(table)
    assert (576, 576) in table  # sqrt(512 * 768) = 627; 576 is the multiple of 64 below it
    assert place(1000, 1000, dataset((512, 768))).bucket == (576, 576)


@pytest.mark.parametrize(
    ("resolution", "step", "expected"),
    [
        ((64, 64), 64, {(64, 64)}),
        ((72, 72), 64, {(64, 64)}),
        ((56, 56), 64, {(56, 56)}),
        ((32, 16), 64, {(32, 16)}),
        ((64, 64), 8, None),
    ],
)
def test_small_resolutions_always_have_a_bucket(resolution, step, expected):
    table = bucket_table(resolution, None, None, step)
    assert set(table) == expected if expected else resolution in table and len(table) > 1


@pytest.mark.parametrize(("low", "high"), [(1024, 512), (768, None), (None, 32)])
def test_limits_that_leave_no_bucket_are_a_config_error(low, high):
    with pytest.raises(ConfigError, match="min_side.*max_side"):
        bucket_table((512, 512), low, high, 64)
    problems = check_buckets(dataset(min_side=low, max_side=high))
    assert len(problems) == 1
    assert problems[0].startswith("dataset.buckets")


def test_check_finds_nothing_wrong_with_the_defaults():
    assert check_buckets(dataset()) == []
    assert check_buckets(dataset(enabled=False, min_side=1024, max_side=512)) == []


@pytest.mark.parametrize(
    ("size", "bucket", "resized", "crop"),
    [
        ((512, 512), (512, 512), (512, 512), (0, 0)),
        ((1024, 1024), (512, 512), (512, 512), (0, 0)),
        ((100, 100), (512, 512), (512, 512), (0, 0)),
        ((2000, 500), (1024, 256), (1024, 256), (0, 0)),
        ((500, 2000), (256, 1024), (256, 1024), (0, 0)),
        # 1.5 lies between 576x448 (1.286) and 640x384 (1.667): log distances 0.154 and 0.105. Of 640/600 and 384/400
        # the larger scale covers: 400 * 640/600 = 426.7 high, of which 43 are cut off.
        ((600, 400), (640, 384), (640, 427), (0, 21)),
    ],
)
def test_place(size, bucket, resized, crop):
    placement = place(*size, dataset())
    assert (placement.bucket, placement.resized, placement.crop) == (bucket, resized, crop)


def test_aspects_are_compared_in_log_space():
    # The neighbours of the square are 9:7 and 7:9. Log distances are equal at sqrt(9/7) = 1.1339, whichever way the
    # picture lies; linear distances are equal at 1.1429 for landscape and at 1/0.8889 = 1.125 for portrait.
    config = dataset()
    for long in (1130, 1138):
        landscape, portrait = place(long, 1000, config).bucket, place(1000, long, config).bucket
        assert landscape == portrait[::-1]
    assert place(1130, 1000, config).bucket == (512, 512)
    assert place(1138, 1000, config).bucket == (576, 448)


def test_between_two_equally_near_buckets_the_larger_wins():
    """6:35 is the geometric mean of 256:1600 and 288:1568."""
    assert 256 * 288 * 35**2 == 1600 * 1568 * 6**2
    config = dataset((448, 1024), step=32)
    assert {(256, 1600), (288, 1568)} <= set(bucket_table((448, 1024), None, None, 32))
    assert place(600, 3500, config).bucket == (288, 1568)
    assert place(3500, 600, config).bucket == (1568, 288)


def random_sizes(count, seed=5):
    rng = random.Random(seed)
    return [(int(math.exp(rng.uniform(3, 9))), int(math.exp(rng.uniform(3, 9)))) for _ in range(count)]


@pytest.mark.parametrize("upscale", [True, False])
@pytest.mark.parametrize("resolution", [(512, 512), (512, 768), (64, 64), (56, 56)])
def test_every_picture_covers_its_bucket_or_has_a_reason(resolution, upscale):
    config = dataset(resolution, upscale=upscale)
    placed = 0
    for width, height in random_sizes(400):
        if reason := obstacle(width, height, config):
            assert f"{width}x{height}" in reason
            continue
        placed += 1
        placement = place(width, height, config)
        (bw, bh), (rw, rh), (left, top) = placement.bucket, placement.resized, placement.crop
        assert bw > 0
        assert bh > 0
        assert bw % 8 == bh % 8 == 0
        assert bw * bh <= resolution[0] * resolution[1]
        assert rw >= bw
        assert rh >= bh
        assert rw == bw or rh == bh, "nothing is cropped on both sides"
        assert 0 <= left <= rw - bw
        assert 0 <= top <= rh - bh
        assert abs((rw - bw) - 2 * left) <= 1
        assert abs((rh - bh) - 2 * top) <= 1
        assert 0 < share_kept(placement) <= 1
        if not upscale:
            assert not enlarged(width, height, placement)
    assert placed > 100


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((300, 200), (256, 192)),
        ((511, 511), (448, 448)),
        ((64, 64), (64, 64)),
        ((2000, 255), (1024, 192)),
        ((512, 512), (512, 512)),
        ((3000, 2000), (640, 384)),
    ],
)
def test_without_upscale_a_small_picture_gets_a_smaller_bucket(size, bucket):
    placement = place(*size, dataset(upscale=False))
    assert placement.bucket == bucket
    assert not enlarged(*size, placement)


def test_without_upscale_a_picture_under_one_step_has_a_reason():
    # kohya makes this a bucket of width 0
    reason = obstacle(63, 500, dataset(upscale=False))
    assert "63x500" in reason
    assert "64 px" in reason
    assert "upscale" in reason
    assert obstacle(63, 500, dataset(upscale=True)) is None


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (7, 1024)])
@pytest.mark.parametrize("enabled", [True, False])
def test_extreme_shapes_have_a_reason_and_no_bucket(size, enabled):
    config = dataset(enabled=enabled)
    assert "too long and narrow" in obstacle(*size, config)
    with pytest.raises(DatasetError, match="too long and narrow"):
        place(*size, config)


def test_one_latent_is_enough_for_the_short_side():
    assert obstacle(8, 1024, dataset()) is None  # the longest side is 1024
    assert "less than the 8 px" in obstacle(8, 1025, dataset())


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_a_picture_without_pixels_has_a_reason(size):
    assert "no pixels" in obstacle(*size, dataset())


@pytest.mark.parametrize(("size", "resized", "crop"), [((1000, 500), (1536, 768), (512, 0)), ((100, 300), (512, 1536), (0, 384))])
def test_buckets_off_crops_everything_to_the_resolution(size, resized, crop):
    placement = place(*size, dataset((512, 768), enabled=False))
    assert (placement.bucket, placement.resized, placement.crop) == ((512, 768), resized, crop)
