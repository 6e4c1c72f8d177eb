"""The block picture: what is drawn where, in which colour."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluate.block_chart import _ABSENT, _COLOURS, draw_blocks
from trainer.families.blocks import FLUX, SDXL, STABLE_DIFFUSION


def pixels(image, colour: str) -> np.ndarray:
    """Where a colour is."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.asarray(image) == wanted).all(-1)


@pytest.mark.parametrize("table", [STABLE_DIFFUSION, SDXL, FLUX])
def test_a_vector_is_drawn(table):
    image = draw_blocks(table, dict.fromkeys(table.names, 1.0), title="标题 $x")
    assert image.mode == "RGB" and image.size[0] >= 770
    assert pixels(image, _COLOURS["text"]).any()
    assert all(pixels(image, _COLOURS[part]).any() for part in table.parts)


def test_a_bar_is_as_high_as_its_number():
    def area(number: float) -> int:
        return int(pixels(draw_blocks(STABLE_DIFFUSION, {"M00": number, "IN00": 1.0}), _COLOURS["mid"])[:330].sum())

    assert area(0.5) == pytest.approx(area(1.0) / 2, rel=0.1)
    assert area(0.0) < area(0.5) / 20


def test_input_blocks_are_left_of_the_middle_and_output_blocks_right():
    image = draw_blocks(STABLE_DIFFUSION, dict.fromkeys(STABLE_DIFFUSION.names, 1.0))
    left, middle, right = (np.nonzero(pixels(image, _COLOURS[part]))[1] for part in ("down", "mid", "up"))
    assert left.max() < middle.min() and middle.max() < right.min()


def test_absent_blocks_are_pale_and_negative_numbers_go_down():
    image = draw_blocks(STABLE_DIFFUSION, {"M00": 1.0}, present=["IN01"])
    assert pixels(image, _ABSENT).any() and not pixels(image, _COLOURS["mid"]).any()
    draw_blocks(STABLE_DIFFUSION, {"M00": -1.0, "IN04": 0.5})
    draw_blocks(STABLE_DIFFUSION, {})
