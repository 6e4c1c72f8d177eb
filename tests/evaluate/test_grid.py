from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageChops

from trainer.evaluate import grid
from trainer.evaluate.fonts import find_font, load_font, needs_cjk
from trainer.evaluate.grid import draw_grid

LONG = "a_very_long_file_name_without_any_space-000010.safetensors and then a sentence that goes on and on, " * 3


def picture(width: int, height: int, colour: str = "red") -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def box_of(page: Image.Image, colour: str) -> tuple[int, int, int, int]:
    """Bounding box (left, top, right, bottom) of the pixels of exactly this colour."""
    difference = np.asarray(ImageChops.difference(page, Image.new("RGB", page.size, colour))).sum(axis=2)
    ys, xs = np.nonzero(difference == 0)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def ink(page: Image.Image) -> np.ndarray:
    """Mask of the dark grey pixels, which only letters have."""
    return np.asarray(page.convert("RGB")).max(axis=2) < 100


def test_rows_and_columns_are_where_they_belong():
    cells = [[picture(200, 200, "#ff0000"), picture(200, 200, "#00ff00")], [picture(200, 200, "#0000ff"), None]]
    page = draw_grid(cells, ["left", "right"], ["above", "below"], "title", "footnote")
    red, green, blue = (box_of(page, colour) for colour in ("#ff0000", "#00ff00", "#0000ff"))
    for box in (red, green, blue):
        assert (box[2] - box[0], box[3] - box[1]) == (200, 200)
    assert red[2] < green[0] and red[1] == green[1]
    assert red[3] < blue[1] and red[0] == blue[0]
    dark = ink(page)
    assert dark[: red[1], red[0] : red[2]].any(), "column label above its column"
    assert dark[red[1] : red[3], : red[0]].any(), "row label beside its row"


@pytest.mark.parametrize(("size", "expected"), [((8, 8), (128, 128)), ((64, 32), (128, 64)), ((129, 300), (129, 300))])
def test_small_pictures_are_enlarged_and_others_left_alone(size, expected):
    left, top, right, bottom = box_of(draw_grid([[picture(*size)]]), "red")
    assert (right - left, bottom - top) == expected


def test_a_giant_grid_is_reduced(monkeypatch):
    monkeypatch.setattr(grid, "LARGEST_GRID", 600)
    page = draw_grid([[picture(512, 256)] * 4] * 2)
    assert 600 <= page.width < 680


def test_pictures_of_several_sizes_keep_their_shape():
    page = draw_grid([[picture(300, 150, "#ff0000"), picture(150, 300, "#0000ff")]])
    assert [box[2] - box[0] for box in (box_of(page, "#ff0000"), box_of(page, "#0000ff"))] == [300, 150]


@pytest.mark.parametrize("cell", [8, 128, 512])
@pytest.mark.parametrize("text", [LONG, "W" * 300, "一个非常长的提示词，没有空格，需要换行显示。" * 8])
def test_long_labels_are_complete_and_never_cover_anything(cell, text):
    page = draw_grid([[picture(cell, cell)] * 2] * 2, [text, text], [text, text], text, text)
    left, top, right, bottom = box_of(page, "red")
    dark = ink(page)
    assert not dark[top:bottom, left:right].any()
    margin = np.concatenate([dark[:2].ravel(), dark[-2:].ravel(), dark[:, :2].ravel(), dark[:, -2:].ravel()])
    assert not margin.any(), "nothing touches the edge of the page"


@pytest.mark.parametrize("text", [LONG, "W" * 300, "two\nlines", "提示词，没有空格（需要）换行" * 5])
@pytest.mark.parametrize("width", [60, 128, 500])
def test_wrapping_loses_no_letter_and_keeps_the_width(text, width):
    label = grid._fit(text, width, 20, max_lines=4)
    assert "".join("".join(label.lines).split()) == "".join(text.split())
    assert max(label.font.getlength(line) for line in label.lines) <= width
    assert not any(line.startswith(("，", "）", "。")) for line in label.lines)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="rows of one length"):
        draw_grid([[picture(8, 8)], []])
    with pytest.raises(ValueError, match="rows of one length"):
        draw_grid([])
    with pytest.raises(ValueError, match="1 columns need 1 labels, got 2"):
        draw_grid([[picture(8, 8)]], ["a", "b"])
    with pytest.raises(ValueError, match="1 rows need 1 labels, got 2"):
        draw_grid([[picture(8, 8)]], row_labels=["a", "b"])


def test_pictures_of_other_modes_are_drawn():
    draw_grid([[Image.new(mode, (16, 16)) for mode in ("L", "RGBA", "P", "1", "CMYK")]])


def test_chinese_text_has_glyphs_where_the_system_has_a_font():
    assert needs_cjk("红色") and not needs_cjk("Größe – naïve")
    if find_font("红") == find_font("a"):
        pytest.skip("this system has no font with Chinese letters")
    font = load_font("红色", 32)
    assert font.getmask("红").getbbox() is not None
    assert bytes(font.getmask("红")) != bytes(font.getmask("色")), "missing letters would all be the same box"
