"""Masks found by name; what is missing, left over or wrong is said."""

from __future__ import annotations

import pytest
from PIL import Image

from trainer.config import DatasetSection
from trainer.data.masks import Mask
from trainer.data.records import scan
from trainer.errors import DatasetError


def picture(path, size=(64, 48), colour="red", mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def dataset(folder, masks=None, **settings):
    folders = ({"path": str(folder), "masks": str(masks) if masks else None},)
    return DatasetSection(folders=folders, resolution=64, captions={"missing": "empty"}, **settings)


def test_masks_are_found_by_name_whatever_their_ending(tmp_path):
    for name in ("a.jpg", "猫 b.png", "c.png"):
        picture(tmp_path / "data" / name)
    one, two = picture(tmp_path / "masks" / "a.png", colour="white"), picture(tmp_path / "masks" / "猫 b.webp", (32, 24), "white")
    picture(tmp_path / "masks" / "left over.png", colour="white")
    found = scan(dataset(tmp_path / "data", tmp_path / "masks"))
    assert [record.mask for record in found.records] == [Mask(one), Mask(), Mask(two)]
    assert [bool(record.mask) for record in found.records] == [True, False, True]
    assert len(found.warnings) == 2
    assert found.warnings[0].endswith("masks without a picture of the same name: left over.png")
    assert found.warnings[1] == "1 pictures have no mask, so all of them is learned: c.png"


def test_of_two_masks_of_one_name_the_first_counts(tmp_path):
    picture(tmp_path / "data" / "a.jpg")
    first = picture(tmp_path / "masks" / "a.jpg", colour="white")
    picture(tmp_path / "masks" / "a.png", colour="white")
    (record,) = scan(dataset(tmp_path / "data", tmp_path / "masks")).records
    assert record.mask == Mask(first)


def test_masks_of_concept_folders_lie_in_folders_of_the_same_names_or_in_one(tmp_path):
    for folder in ("2_cat", "1_dog"):
        picture(tmp_path / "data" / folder / f"{folder[-1]}.png")
    inner = picture(tmp_path / "masks" / "2_cat" / "t.png", colour="white")
    outer = picture(tmp_path / "masks" / "g.png", colour="white")
    found = scan(dataset(tmp_path / "data", tmp_path / "masks"))
    assert {record.path.name: record.mask.path for record in found.records} == {"t.png": inner, "g.png": outer}


def test_a_folder_of_masks_inside_the_dataset_is_not_reported_as_unused(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "masks" / "a.png", colour="white")
    assert scan(dataset(tmp_path, tmp_path / "masks")).warnings == ()


def test_a_mask_that_cannot_be_read_costs_its_picture_with_a_reason(tmp_path):
    picture(tmp_path / "data" / "a.png")
    picture(tmp_path / "data" / "b.png")
    picture(tmp_path / "masks" / "a.png", colour="white")
    (tmp_path / "masks" / "b.png").write_bytes(b"no picture")
    found = scan(dataset(tmp_path / "data", tmp_path / "masks"))
    assert [record.path.name for record in found.records] == ["a.png"]
    assert "its mask" in found.skipped[0].reason and "not PNG" in found.skipped[0].reason
    with pytest.raises(DatasetError, match="its mask"):
        scan(dataset(tmp_path / "data", tmp_path / "masks", unreadable="refuse"))


@pytest.mark.parametrize(
    ("size", "colour", "words"),
    [
        ((64, 48), "black", "black everywhere"),
        ((64, 64), "white", "another shape (64x64) than its picture (64x48)"),
        ((128, 96), "white", None),
    ],
)
def test_suspicious_masks_are_said(tmp_path, size, colour, words):
    picture(tmp_path / "data" / "a.png")
    picture(tmp_path / "masks" / "a.png", size, colour)
    warnings = scan(dataset(tmp_path / "data", tmp_path / "masks")).warnings
    assert len(warnings) == (words is not None)
    assert not words or words in warnings[0]


def test_masks_that_fit_no_picture_are_an_error(tmp_path):
    picture(tmp_path / "data" / "a.png")
    picture(tmp_path / "masks" / "b.png")
    with pytest.raises(DatasetError, match=r"no mask in .*masks has the name of a picture in .*data; it holds b\.png"):
        scan(dataset(tmp_path / "data", tmp_path / "masks"))
    with pytest.raises(DatasetError, match="pictures themselves"):
        scan(dataset(tmp_path / "data", tmp_path / "data"))
    with pytest.raises(DatasetError, match="does not exist"):
        scan(dataset(tmp_path / "data", tmp_path / "gone"))


def test_alpha_channels(tmp_path):
    picture(tmp_path / "a.png", mode="RGBA", colour=(1, 2, 3, 4))
    picture(tmp_path / "b.png")
    assert [record.mask for record in scan(dataset(tmp_path)).records] == [Mask(), Mask()]
    found = scan(dataset(tmp_path, alpha_mask=True))
    assert [record.mask for record in found.records] == [Mask(alpha=True), Mask()]
    assert found.warnings == ("1 pictures have no mask, so all of them is learned: b.png",)
    (tmp_path / "a.png").unlink()
    assert scan(dataset(tmp_path, alpha_mask=True)).warnings == ("dataset.alpha_mask has no effect: no picture has an alpha channel",)
