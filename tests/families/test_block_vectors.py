"""Weights as text. Expected numbers are worked out from kohya's formulas, or are those that its code was seen to give."""

from __future__ import annotations

import math

import pytest

from trainer.errors import ConfigError
from trainer.families.block_vectors import as_text, part_values, vector_values
from trainer.families.blocks import FLUX, SDXL, STABLE_DIFFUSION

SINE12 = [math.sin(math.pi / 2 * i / 11) for i in range(12)]
IN9 = [f"IN{i:02d}" for i in range(9)]
ONES = [1.0] * 12

PARTS = [  # (table, part, text, numbers)
    (STABLE_DIFFUSION, "down", "sine", SINE12),
    (STABLE_DIFFUSION, "up", "cosine", SINE12[::-1]),
    (STABLE_DIFFUSION, "down", "sine+.25", [0.25 + x for x in SINE12]),
    (STABLE_DIFFUSION, "down", "cosine+.25", [0.25 + x for x in SINE12[::-1]]),
    (STABLE_DIFFUSION, "up", "linear", [i / 11 for i in range(12)]),
    (STABLE_DIFFUSION, "up", "reverse_linear", [1 - i / 11 for i in range(12)]),
    (STABLE_DIFFUSION, "up", "linear-0.5", [i / 11 - 0.5 for i in range(12)]),
    (STABLE_DIFFUSION, "up", " Linear + 0.5 ", [i / 11 + 0.5 for i in range(12)]),
    (STABLE_DIFFUSION, "down", "zeros", [0.0] * 12),
    (STABLE_DIFFUSION, "down", "zeros+1", ONES),
    (STABLE_DIFFUSION, "down", "0.5", [0.5] * 12),
    (STABLE_DIFFUSION, "mid", "0.25", [0.25]),
    (STABLE_DIFFUSION, "up", "0,0,0,0,0,0,1,1,1,1,1,1", [0.0] * 6 + [1.0] * 6),
    (STABLE_DIFFUSION, "up", "1,,1,1,1,1,1,1,1,1,1,.5", [1.0, 0.0] + [1.0] * 9 + [0.5]),
    (SDXL, "down", "sine", [math.sin(math.pi / 2 * i / 8) for i in range(9)]),
    (SDXL, "up", "1,2,3,4,5,6,7,8,9", [float(i) for i in range(1, 10)]),
    (SDXL, "mid", "0.5,1,2", [0.5, 1.0, 2.0]),
    (SDXL, "mid", "0.5", [0.5] * 3),
]


@pytest.mark.parametrize(("table", "part", "text", "numbers"), PARTS, ids=lambda value: getattr(value, "title", None))
def test_parts(table, part, text, numbers):
    values = part_values(text, table, part, "here")
    assert list(values) == list(table.parts[part])
    assert list(values.values()) == pytest.approx(numbers, abs=1e-12)


def test_a_curve_with_a_base_runs_from_a_quarter_to_one_and_a_quarter():
    values = list(part_values("sine+.25", STABLE_DIFFUSION, "down", "here").values())
    assert (values[0], values[-1]) == (0.25, 1.25)


@pytest.mark.parametrize("curve", ["cosine", "reverse_linear"])
def test_a_falling_curve_ends_at_nothing(curve):
    """Exactly: a block whose weight is above 0 is trained, however small it is."""
    values = list(part_values(curve, STABLE_DIFFUSION, "down", "here").values())
    assert (values[0], values[-1]) == (1.0, 0.0)


WRONG_PARTS = [
    (
        STABLE_DIFFUSION,
        "down",
        "1,1,1",
        "here: 3 values do not fit Stable Diffusion 1 and 2. Expected one number, or 12 values: IN00, IN01",
    ),
    (STABLE_DIFFUSION, "up", ",".join(["1"] * 13), "13 values do not fit .* 12 values: OUT00, OUT01"),
    (STABLE_DIFFUSION, "mid", "1,1,1", "3 values do not fit .* 1 value: M00"),
    (SDXL, "down", ",".join(["1"] * 12), "12 values do not fit SDXL.* 9 values: IN00"),
    (SDXL, "mid", "1,1", "2 values do not fit SDXL.* 3 values: M00, M01, M02"),
    (STABLE_DIFFUSION, "down", "cosin", "'cosin' is unknown; curves: cosine, sine, linear, reverse_linear, zeros"),
    (STABLE_DIFFUSION, "down", "cosine+", r"'\+' is not a number"),
    (STABLE_DIFFUSION, "down", "cosine+x", r"'\+x' is not a number"),
    (STABLE_DIFFUSION, "down", "sine.25", "'sine.25' is not a number"),
    (STABLE_DIFFUSION, "down", "1,1,1,1,1,1,1,1,1,1,1,x", "'x' is not a number .for block IN11."),
    (STABLE_DIFFUSION, "down", "nan", "'nan' is"),
    (STABLE_DIFFUSION, "down", "1,1,1,1,1,1,1,1,1,1,1,inf", "'inf' is not a number"),
    (STABLE_DIFFUSION, "mid", "cosine", "is a curve, which is for down and up"),
    (SDXL, "mid", "sine+1", "is a curve, which is for down and up"),
    (STABLE_DIFFUSION, "down", "IN04=1, OUT01=1", "'OUT01=1' is not written as block=number"),
    (STABLE_DIFFUSION, "down", "IN04=1, IN99=1", "'IN99=1' is not written"),
    (STABLE_DIFFUSION, "down", "IN04=1 0.5", "'0.5' is not written"),
    (FLUX, "down", "1", "the blocks of Flux have no down part; use weights"),
]


@pytest.mark.parametrize(("table", "part", "text", "message"), WRONG_PARTS, ids=lambda value: getattr(value, "title", None))
def test_wrong_parts_name_place_value_and_table(table, part, text, message):
    with pytest.raises(ConfigError, match=message):
        part_values(text, table, part, "here")


def numbered(count: int) -> str:
    return ",".join(str(i + 1) for i in range(count))


LENGTHS = [  # a length, and some of the numbers that 1, 2, 3 … give
    (STABLE_DIFFUSION, 16, {"IN01": 1, "IN02": 2, "IN04": 3, "M00": 7, "OUT03": 8, "OUT11": 16, "IN00": 0, "IN03": 0, "OUT02": 0}),
    (STABLE_DIFFUSION, 17, {"BASE": 1, "IN01": 2, "IN08": 7, "M00": 8, "OUT03": 9, "OUT11": 17, "IN09": 0}),
    (STABLE_DIFFUSION, 25, {"IN00": 1, "IN11": 12, "M00": 13, "OUT00": 14, "OUT11": 25}),
    (STABLE_DIFFUSION, 26, {"BASE": 1, "IN00": 2, "IN11": 13, "M00": 14, "OUT00": 15, "OUT11": 26}),
    (SDXL, 12, {"BASE": 1, "IN04": 2, "IN08": 5, "M00": 6, "M01": 6, "M02": 6, "OUT00": 7, "OUT05": 12, "IN01": 0, "OUT06": 0}),
    (SDXL, 20, {"BASE": 1, "IN00": 2, "IN08": 10, "M01": 11, "OUT00": 12, "OUT08": 20}),
    (SDXL, 23, {"EMB": 1, "IN00": 2, "IN08": 10, "M00": 11, "M02": 13, "OUT00": 14, "OUT08": 22, "FINAL": 23}),
    (FLUX, 61, {"CLIP": 1, "T5": 2, "IN": 3, "D00": 4, "D18": 22, "S00": 23, "S37": 60, "OUT": 61}),
]


@pytest.mark.parametrize(("table", "length", "numbers"), LENGTHS)
def test_lengths_are_read_by_name(table, length, numbers):
    values = vector_values(numbered(length), table, "here")
    assert {name: values[name] for name in numbers} == numbers
    assert ("BASE" in values) == (length in (12, 17, 20, 26))
    assert set(table.blocks) <= set(values)


@pytest.mark.parametrize(("table", "length", "message"), [
    (STABLE_DIFFUSION, 12, "16 values: IN01, .*; or 17 values: BASE, .*; or 25 values: IN00, .*; or 26 values: BASE, IN00"),
    (STABLE_DIFFUSION, 24, "24 values do not fit"),
    (SDXL, 17, "17 values do not fit SDXL.* 12 values: BASE, IN04, IN05, IN07, IN08, M00-M02, OUT00"),
    (SDXL, 25, "25 values do not fit SDXL"),
    (FLUX, 57, "57 values do not fit Flux. Expected one number, or 61 values: CLIP, T5, IN, D00"),
])  # fmt: skip
def test_other_lengths_show_the_table(table, length, message):
    with pytest.raises(ConfigError, match=message):
        vector_values(numbered(length), table, "here")


def test_numbers_by_name():
    assert vector_values("IN04-IN05=0.5, m00=-1 in05 = 2", STABLE_DIFFUSION, "here") == {"IN04": 0.5, "IN05": 2, "M00": -1}
    assert set(vector_values("0.7", SDXL, "here").items()) == {(name, 0.7) for name in SDXL.names}
    assert "BASE" not in vector_values("8", SDXL, "here", text_encoders=False)
    with pytest.raises(ConfigError, match="17 values do not fit"):
        vector_values(numbered(17), STABLE_DIFFUSION, "here", text_encoders=False)
    with pytest.raises(ConfigError, match="is a curve"):
        vector_values("cosine", SDXL, "here")


def test_a_text_of_numbers_gives_them_again():
    """Equal neighbours are a range; a block without a number ends it."""
    values = {"IN00": 1.0, "IN01": 1.0, "IN03": 1.0, "M00": 0.25, "OUT00": 0.25}
    text = as_text(values, STABLE_DIFFUSION)
    assert vector_values(text, STABLE_DIFFUSION, "here") == values
    assert text == "IN00-IN01=1, IN03=1, M00-OUT00=0.25"
