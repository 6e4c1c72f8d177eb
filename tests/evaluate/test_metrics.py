from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from trainer.evaluate.metrics import changed_share, difference, mean_abs_difference, psnr, ssim


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8))


def test_equal_pictures():
    assert mean_abs_difference(noise(0), noise(0)) == 0
    assert psnr(noise(0), noise(0)) == math.inf
    assert ssim(noise(0), noise(0)) == pytest.approx(1.0)


def test_values_by_hand():
    black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 51, np.uint8)
    assert mean_abs_difference(black, grey) == 51
    assert psnr(black, grey) == pytest.approx(20 * math.log10(5))
    # Constant pictures: only the luminance term is left, c1 / (51^2 + c1) with c1 = (0.01 * 255)^2.
    assert ssim(black, grey) == pytest.approx(6.5025 / (51**2 + 6.5025))


def test_difference_of_dark_and_light_does_not_wrap_around():
    assert mean_abs_difference(np.full((2, 2), 250, np.uint8), np.full((2, 2), 10, np.uint8)) == 240


def test_unrelated_pictures_are_far_apart():
    assert ssim(noise(0), noise(1)) < 0.2
    assert psnr(noise(0), noise(1)) < 12


def test_modes_and_sizes():
    assert mean_abs_difference(Image.new("L", (8, 8), 10), Image.new("RGB", (8, 8), (10, 10, 10))) == 0
    with pytest.raises(ValueError, match="24x16 and 8x8"):
        psnr(noise(0), Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match="at least 7x7 pixels, got 4x9"):
        ssim(Image.new("RGB", (4, 9)), Image.new("RGB", (4, 9)))


def test_changed_pixels_by_hand():
    """2 x 3 pixels: equal; 20 in one channel; 21 in one channel; 7 in each of three; -200; 255."""
    before, after = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    after[0, 1, 0], after[0, 2, 1], after[1, 0], before[1, 1, 2], after[1, 2] = 20, 21, 7, 200, 255
    assert difference(before, after).tolist() == [[0, 20, 21], [7, 200, 255]]
    assert changed_share(before, after) == pytest.approx(3 / 6)
    assert changed_share(before, after, threshold=19.5) == pytest.approx(4 / 6)
    assert changed_share(before, after, threshold=0) == pytest.approx(5 / 6)
    assert changed_share(Image.fromarray(before), Image.fromarray(before), threshold=0) == 0
