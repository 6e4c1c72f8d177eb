"""Augmentation: every number follows from the seed, no corner is empty, and masks go where their picture goes."""

from __future__ import annotations

import colorsys
import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.config import AugmentSection
from trainer.data.buckets import Placement
from trainer.data.images import resize
from trainer.data.views import Colour, View, coloured, draw_view, fresh_settings, is_fresh, load_mask, load_pixels, show, turned_zoom

CUT = Placement((64, 64), (96, 64), (16, 0))
EVERYTHING = AugmentSection(flip=True, random_crop=True, rotate=20.0, color=1.0)


def test_without_augmentation_a_view_is_its_placement():
    assert draw_view(CUT, AugmentSection(), 5) == View(CUT)
    image = Image.effect_noise((120, 80), 90).convert("RGB")
    assert show(image, View(CUT)).tobytes() == resize(image, CUT).tobytes()


@pytest.mark.parametrize("setting", ["flip", "random_crop", "rotate", "color"])
def test_each_setting_changes_its_own_part_and_not_the_chance_of_the_others(setting):
    value = getattr(EVERYTHING, setting)
    alone = [draw_view(CUT, AugmentSection(**{setting: value}), seed) for seed in range(30)]
    together = [draw_view(CUT, EVERYTHING, seed) for seed in range(30)]
    part = {"flip": "flip", "random_crop": "placement", "rotate": "angle", "color": "colour"}[setting]
    assert [getattr(view, part) for view in alone] == [getattr(view, part) for view in together]
    assert len({getattr(view, part) for view in alone}) > 1
    for view in alone:
        assert {name for name in ("placement", "flip", "angle", "colour") if getattr(view, name) != getattr(View(CUT), name)} <= {part}


def test_half_of_the_uses_are_mirrored():
    count = sum(draw_view(CUT, AugmentSection(flip=True), seed).flip for seed in range(2000))
    assert abs(count - 1000) < 90  # four standard deviations of sqrt(2000) / 2


def test_mirroring_has_nothing_to_do_with_the_crop():
    """Both sides see each of two places equally often."""
    narrow = Placement((64, 64), (65, 64), (0, 0))
    views = [draw_view(narrow, AugmentSection(flip=True, random_crop=True), seed) for seed in range(1200)]
    counts = Counter((view.flip, view.placement.crop) for view in views)
    assert set(counts) == {(flip, (left, 0)) for flip in (False, True) for left in (0, 1)}
    assert all(abs(count - 300) < 75 for count in counts.values())  # five standard deviations of sqrt(1200 * 1/4 * 3/4)


def test_random_crops_are_uniform_over_the_overhang():
    counts = Counter(draw_view(CUT, AugmentSection(random_crop=True), seed).placement.crop for seed in range(3300))
    assert set(counts) == {(left, 0) for left in range(33)}
    assert all(abs(count - 100) < 50 for count in counts.values())  # five standard deviations of sqrt(100)


def test_angles_and_colours_stay_in_their_range():
    views = [draw_view(CUT, AugmentSection(rotate=10, color=0.5), seed) for seed in range(500)]
    angles = [view.angle for view in views]
    assert -10 <= min(angles) < -9.5 and 9.5 < max(angles) <= 10
    for name, reach in (("brightness", 0.1), ("contrast", 0.1), ("saturation", 0.15)):
        values = [getattr(view.colour, name) for view in views]
        assert 1 - reach <= min(values) < 1 - 0.95 * reach and 1 + 0.95 * reach < max(values) <= 1 + reach
    hues = [view.colour.hue for view in views]
    assert -0.02 <= min(hues) < -0.019 and 0.019 < max(hues) <= 0.02


def test_which_settings_need_fresh_encodings():
    assert fresh_settings(EVERYTHING) == ["random_crop", "rotate", "color"]
    assert not is_fresh(AugmentSection(flip=True))


def test_zoom_of_a_turn():
    assert turned_zoom(64, 64, 45) == pytest.approx(math.sqrt(2))
    assert turned_zoom(64, 64, 5) == pytest.approx(0.9961947 + 0.0871557, abs=1e-6)
    # 128x64 turned by 30 degrees is 64 * (2 * 0.8660 + 0.5) = 142.85 wide and 64 * (2 * 0.5 + 0.8660) = 119.43 high
    assert turned_zoom(128, 64, 30) == pytest.approx(119.426 / 64, abs=1e-4)


@pytest.mark.parametrize("angle", [-45.0, -7.3, 0.1, 5.0, 30.0, 45.0])
@pytest.mark.parametrize("placement", [CUT, Placement((128, 64), (128, 64), (0, 0)), Placement((64, 96), (70, 96), (6, 0))])
@pytest.mark.parametrize("mask", [False, True])
def test_no_corner_is_empty(angle, placement, mask):
    white = Image.new("L", (300, 200), 255)
    shown = np.asarray(show(white, View(placement, angle=angle), mask=mask))
    assert shown.shape == (placement.bucket[1], placement.bucket[0])
    assert shown.min() == 255


def test_a_turn_is_counter_clockwise_about_the_middle():
    image = Image.new("L", (64, 64))
    image.paste(255, (50, 28, 58, 36))  # right of the middle: 22 pixels
    shown = np.asarray(show(image, View(Placement((64, 64), (64, 64), (0, 0)), angle=45.0)), float)
    rows, columns = np.nonzero(shown > 128)
    # Zoomed by the square root of 2 (less the two pixels at the edge), so 22 * 1.414 at 45 degrees: 22 to the right and 22 up.
    assert columns.mean() - 31.5 == pytest.approx(22, abs=1.2)
    assert rows.mean() - 31.5 == pytest.approx(-22, abs=1.2)


def spot(tmp_path, size=(150, 100)):
    """A black picture with a white rectangle, and its mask: white at the same place."""
    image = Image.new("L", size)
    image.paste(255, (round(size[0] * 0.55), round(size[1] * 0.2), round(size[0] * 0.8), round(size[1] * 0.5)))
    image.convert("RGB").save(tmp_path / "picture.png")
    image.save(tmp_path / "mask.png")
    return tmp_path / "picture.png", tmp_path / "mask.png"


@pytest.mark.parametrize(
    "augment", [AugmentSection(), AugmentSection(flip=True), AugmentSection(random_crop=True), AugmentSection(rotate=40.0), EVERYTHING]
)
@pytest.mark.parametrize("place", [CUT, Placement((96, 64), (96, 64), (0, 0)), Placement((192, 128), (200, 133), (4, 2))])
def test_the_mask_is_where_the_picture_is(tmp_path, augment, place):
    picture, mask = spot(tmp_path)
    means = set()
    for seed in range(6):
        view = draw_view(place, augment, seed)
        view = View(view.placement, view.flip, view.angle)  # the spot keeps its brightness
        pixels = (load_pixels(picture, view, "white")[0] + 1) / 2
        values = load_mask(picture, mask, False, view, 8)
        assert values.shape == (1, place.bucket[1] // 8, place.bucket[0] // 8)
        assert values.dtype == torch.float32 and values.min() >= 0 and values.max() <= 1
        expected = torch.nn.functional.avg_pool2d(pixels[None], 8)
        torch.testing.assert_close(values, expected, atol=0.08, rtol=0)
        means.add(round(float((values[0] * torch.arange(values.shape[2])).sum() / values.sum()), 3))
    assert (len(means) > 1) == (
        augment != AugmentSection() and not (augment == AugmentSection(random_crop=True) and place.resized == place.bucket)
    )


def test_mirroring_moves_the_seen_crop_to_the_other_side():
    place = Placement((64, 64), (96, 80), (5, 3))
    assert View(place).seen == place
    assert View(place, flip=True).seen == Placement((64, 64), (96, 80), (27, 3))  # 96 - 64 - 5


def test_mask_values_by_hand(tmp_path):
    whole = View(Placement((16, 16), (16, 16), (0, 0)))
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (0, 0, 12, 8))  # of the upper row, the first latent whole and the second half
    mask.save(tmp_path / "mask.png")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "opaque.png")
    expected = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    assert torch.equal(load_mask(tmp_path / "opaque.png", tmp_path / "mask.png", False, whole, 8), expected)
    assert torch.equal(load_mask(tmp_path / "opaque.png", None, True, whole, 8), torch.ones(1, 2, 2))
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    clear.paste((0, 0, 0, 51), (0, 0, 16, 8))  # a fifth
    clear.save(tmp_path / "clear.png")
    torch.testing.assert_close(load_mask(tmp_path / "clear.png", None, True, whole, 8), torch.tensor([[[0.2, 0.2], [1.0, 1.0]]]))
    both = load_mask(tmp_path / "clear.png", tmp_path / "mask.png", True, whole, 8)
    torch.testing.assert_close(both, torch.tensor([[[0.2, 0.1], [0.0, 0.0]]]))
    mask.resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    assert torch.equal(load_mask(tmp_path / "opaque.png", tmp_path / "large.png", False, whole, 8), expected)
    assert load_mask(tmp_path / "opaque.png", tmp_path / "mask.png", False, whole, 4).shape == (1, 4, 4)


def grey(values):
    return np.repeat(np.array(values, np.float32)[None, :, None], 3, axis=2)


def test_colours_by_hand():
    pixels = np.random.default_rng(1).uniform(60, 190, (4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(coloured(pixels, Colour()), pixels, atol=1e-3)
    np.testing.assert_allclose(coloured(grey([100, 200]), Colour(brightness=1.1)), grey([110, 220]), atol=1e-3)
    np.testing.assert_allclose(coloured(grey([100, 200]), Colour(brightness=1.5)), grey([150, 255]), atol=1e-3)  # clipped
    np.testing.assert_allclose(coloured(grey([100, 200]), Colour(contrast=0.8)), grey([110, 190]), atol=1e-3)  # about 150
    luma = 0.299 * pixels[..., 0] + 0.587 * pixels[..., 1] + 0.114 * pixels[..., 2]
    np.testing.assert_allclose(coloured(pixels, Colour(saturation=0.0)), np.repeat(luma[..., None], 3, 2), atol=1e-3)
    np.testing.assert_allclose(coloured(grey([7, 99]), Colour(saturation=1.3, hue=0.3)), grey([7, 99]), atol=0.1)


def test_hue_turns_the_colour_and_keeps_the_brightness():
    pixels = np.array([[[140.0, 110.0, 100.0]]], np.float32)
    turned = coloured(pixels, Colour(hue=0.04))[0, 0] / 255
    (y1, i1, q1), (y2, i2, q2) = colorsys.rgb_to_yiq(*(pixels[0, 0] / 255)), colorsys.rgb_to_yiq(*turned)
    assert y2 == pytest.approx(y1, abs=2e-3)
    assert math.hypot(i2, q2) == pytest.approx(math.hypot(i1, q1), rel=0.03)
    assert math.degrees(math.atan2(q2, i2) - math.atan2(q1, i1)) == pytest.approx(14.4, abs=0.8)
