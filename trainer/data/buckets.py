"""Aspect-ratio buckets: which size a picture is trained at, and how it is scaled and cropped to it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from ..config import DatasetSection, Size
from ..errors import ConfigError, DatasetError

LATENT_PIXELS = 8  # one latent stands for 8x8 pixels in every supported family


@dataclass(frozen=True)
class Placement:
    """Scale the upright picture to `resized`, then cut `bucket` out of it at `crop` = (left, top)."""

    bucket: Size
    resized: Size
    crop: tuple[int, int]


@functools.lru_cache(maxsize=64)
def bucket_table(resolution: Size, min_side: int | None, max_side: int | None, step: int) -> tuple[Size, ...]:
    """All bucket sizes, sorted: sides are multiples of `step` between the limits, no area exceeds that of `resolution`.

    None for a limit means half the shorter and twice the longer side of `resolution`. A resolution so small that no
    bucket fits (such as 56 with step 64) gives one bucket, `resolution` itself rounded down to a multiple of 8. Else a
    resolution that is no multiple of the step is rounded down like every bucket: 600 with step 64 has the square 576.
    """
    width, height = resolution
    area = width * height
    low = _ceil(min_side if min_side is not None else min(resolution) // 2, step)
    high = _floor(max_side if max_side is not None else 2 * max(resolution), step)
    table = set()
    for side in range(low, high + 1, step):
        other = min(high, _floor(area // side, step))
        if other >= low:
            table |= {(side, other), (other, side)}
    square = min(high, _floor(math.isqrt(area), step))
    if square >= low:
        table.add((square, square))
    if table:
        return tuple(sorted(table))
    if min_side is not None or max_side is not None:
        raise ConfigError(
            f"dataset.buckets: no multiple of step {step} fits between min_side {min_side} and max_side {max_side} "
            f"with the area of resolution {width}x{height}; lower min_side or step, raise max_side, or leave both out"
        )
    return ((_floor(width, LATENT_PIXELS), _floor(height, LATENT_PIXELS)),)


def check_buckets(config: DatasetSection) -> list[str]:
    """What is wrong with the bucket settings, without looking at a picture."""
    try:
        _table(config)
    except ConfigError as error:
        return error.problems
    return []


def obstacle(width: int, height: int, config: DatasetSection) -> str | None:
    """Why a picture of this size cannot be trained on, in words for a person; None if it can."""
    if width < 1 or height < 1:
        return f"it has no pixels ({width}x{height})"
    longest = _longest_side(_table(config))
    short = min(width, height) * longest / max(width, height)
    if short < LATENT_PIXELS:
        return (
            f"{width}x{height} is too long and narrow: within the longest bucket side of {longest} px its short "
            f"side would shrink to {short:.1f} px, less than the {LATENT_PIXELS} px of one latent; crop the picture"
        )
    if config.buckets.enabled and not config.buckets.upscale:
        step = min(config.buckets.step, *nearest_bucket(width, height, config))
        if min(width, height) < step:
            return (
                f"{width}x{height} is smaller than one bucket step ({step} px) and dataset.buckets.upscale is off; "
                "switch upscale on or lower dataset.buckets.step"
            )
    return None


def place(width: int, height: int, config: DatasetSection) -> Placement:
    """Where an upright picture goes; DatasetError with the reason of `obstacle` where it fits nowhere."""
    reason = obstacle(width, height, config)
    if reason:
        raise DatasetError(f"a picture cannot be placed in a bucket: {reason}")
    bucket = nearest_bucket(width, height, config)
    if config.buckets.enabled and not config.buckets.upscale and (width < bucket[0] or height < bucket[1]):
        bucket = _without_upscale(width, height, config)
    return _cover(width, height, bucket)


def nearest_bucket(width: int, height: int, config: DatasetSection) -> Size:
    """The bucket of the nearest aspect ratio, in log space so that 2:1 and 1:2 are equally far from a square.

    In a tie the larger bucket wins, then the one that lies the way `resolution` does.
    """
    return _nearest(width, height, _table(config), portrait=config.resolution[0] <= config.resolution[1])


@functools.lru_cache(maxsize=100_000)  # a dataset is placed several times
def _nearest(width: int, height: int, table: tuple[Size, ...], portrait: bool) -> Size:
    aspect = math.log(width / height)
    away = [round(abs(other - aspect), 9) for other in _log_aspects(table)]
    least = min(away)
    tied = [size for size, distance in zip(table, away, strict=True) if distance == least]
    return min(tied, key=lambda size: (-size[0] * size[1], (size[0] <= size[1]) != portrait, size))


@functools.lru_cache(maxsize=64)
def _log_aspects(table: tuple[Size, ...]) -> tuple[float, ...]:
    return tuple(math.log(width / height) for width, height in table)


@functools.lru_cache(maxsize=64)
def _longest_side(table: tuple[Size, ...]) -> int:
    return max(max(size) for size in table)


def enlarged(width: int, height: int, placement: Placement) -> bool:
    """Whether the placement makes the picture larger than it is."""
    return placement.resized[0] > width or placement.resized[1] > height


def share_kept(placement: Placement) -> float:
    """The part of the picture that is left after the crop, in (0, 1]."""
    return (placement.bucket[0] * placement.bucket[1]) / (placement.resized[0] * placement.resized[1])


def _table(config: DatasetSection) -> tuple[Size, ...]:
    """The buckets in use: with buckets off, `resolution` alone."""
    if not config.buckets.enabled:
        return (config.resolution,)
    return bucket_table(config.resolution, config.buckets.min_side, config.buckets.max_side, config.buckets.step)


def _without_upscale(width: int, height: int, config: DatasetSection) -> Size:
    """The largest multiples of the step inside the picture, within the table's longest side and the resolution's area.

    `min_side` does not hold here: it is the picture that is small.
    """
    table = _table(config)
    step = min(config.buckets.step, *nearest_bucket(width, height, config))
    longest = _longest_side(table)
    area = config.resolution[0] * config.resolution[1]
    sides = [min(longest, _floor(side, step)) for side in (width, height)]
    while sides[0] * sides[1] > area:
        sides[sides.index(max(sides))] -= step
    return sides[0], sides[1]


def _cover(width: int, height: int, bucket: Size) -> Placement:
    """Scale so that the picture covers the bucket, then cut the overhang off evenly."""
    scale = max(bucket[0] / width, bucket[1] / height)
    resized = max(bucket[0], round(width * scale)), max(bucket[1], round(height * scale))
    return Placement(bucket, resized, ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2))


def _floor(value: int, step: int) -> int:
    return value // step * step


def _ceil(value: int, step: int) -> int:
    return max(step, -(-value // step) * step)
