"""Scanning: folders of every layout on a real file system; nothing disappears without a word."""

from __future__ import annotations

import hashlib
import os
import random
import unicodedata

import pytest
from PIL import Image

from trainer.config import DatasetSection
from trainer.data.folders import parse_concept
from trainer.data.records import IMAGE_SUFFIXES, Record, scan
from trainer.errors import ConfigError, DatasetError


def picture(path, size=(64, 64), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path, {".JPG": "JPEG"}.get(path.suffix.upper()), **options)
    return path


def text(path, content="a caption", encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def dataset(*folders, **settings):
    settings = {"resolution": 64, "captions": {"missing": "empty"}, **settings}
    return DatasetSection(folders=tuple(f if isinstance(f, dict) else {"path": str(f)} for f in folders), **settings)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(items):
    return [item.path.name for item in items]


def all_of(scan_result, text):
    return [warning for warning in scan_result.warnings if text in warning]


def test_a_plain_folder(tmp_path):
    picture(tmp_path / "pics" / "b.png", (30, 50))
    picture(tmp_path / "pics" / "a.jpg", (70, 64))
    text(tmp_path / "pics" / "b.txt", "  a blue bird\n")
    text(tmp_path / "pics" / "a.txt", "a red fox")
    found = scan(dataset({"path": str(tmp_path / "pics"), "repeats": 7}))
    folder = tmp_path / "pics"
    assert found.records == (
        Record(folder / "a.jpg", "a red fox", "a.txt", 70, 64, 7, folder, digest(folder / "a.jpg")),
        Record(folder / "b.png", "a blue bird", "b.txt", 30, 50, 7, folder, digest(folder / "b.png")),
    )
    assert found.skipped == found.warnings == found.empty_captions == ()
    assert not found.stopped


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("10_cat", (10, "cat")),
        ("1_sks_grey_cat", (1, "sks grey cat")),
        ("007_a  b", (7, "a b")),
        ("3_", (3, "")),
        ("5_猫", (5, "猫")),
        (os.fsdecode(b"10_caf\xe9"), (10, "caf?")),  # a tokenizer takes no such letters
        ("10000_x", (10000, "x")),
        ("0_cat", None),
        ("10001_x", None),
        ("10", None),
        ("cat_10", None),
        ("-1_cat", None),
        ("1.5_cat", None),
        ("٣_cat", None),
        ("10 cat", None),
    ],
)
def test_parse_concept(name, expected):
    assert parse_concept(name) == expected


def test_a_parent_of_concept_folders(tmp_path):
    picture(tmp_path / "10_sks_cat" / "a.png")
    text(tmp_path / "10_sks_cat" / "a.txt", "own caption")
    picture(tmp_path / "10_sks_cat" / "b.png")
    picture(tmp_path / "3_dog" / "a.png")
    found = scan(dataset(tmp_path, captions={}))
    assert [(r.folder.name, r.path.name, r.caption, r.caption_source, r.repeats) for r in found.records] == [
        ("10_sks_cat", "a.png", "own caption", "a.txt", 10),
        ("10_sks_cat", "b.png", "sks cat", "class words", 10),
        ("3_dog", "a.png", "dog", "class words", 3),
    ]
    assert found.warnings == ()


def test_settings_override_the_folder_name(tmp_path):
    picture(tmp_path / "10_cat" / "a.png")
    found = scan(dataset({"path": str(tmp_path), "repeats": 2, "class_words": "a lion"}, captions={}))
    assert [(r.caption, r.repeats) for r in found.records] == [("a lion", 2)]


def test_a_concept_folder_chosen_directly_keeps_its_repeats_and_says_so(tmp_path):
    picture(tmp_path / "10_cat" / "a.png")
    found = scan(dataset(tmp_path / "10_cat", captions={}))
    assert [(r.caption, r.repeats) for r in found.records] == [("cat", 10)]
    assert len(all_of(found, "counts 10 times")) == 1
    assert scan(dataset({"path": str(tmp_path / "10_cat"), "repeats": 10}, captions={})).warnings == ()


def test_own_pictures_beside_concept_folders_are_both_used_with_a_warning(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "4_cat" / "b.png")
    found = scan(dataset(tmp_path))
    assert [(r.path.name, r.repeats) for r in found.records] == [("a.png", 1), ("b.png", 4)]
    assert len(all_of(found, "both pictures of its own and N_concept folders")) == 1


def test_unused_subfolders_are_listed(tmp_path):
    picture(tmp_path / "2_cat" / "a.png")
    picture(tmp_path / "2_cat" / "old" / "b.png")
    picture(tmp_path / "backup" / "c.png")
    picture(tmp_path / "0_none" / "d.png")
    (tmp_path / "5_empty").mkdir()
    picture(tmp_path / "__MACOSX" / "e.png")
    picture(tmp_path / ".thumbs" / "f.png")
    found = scan(dataset(tmp_path))
    assert names(found.records) == ["a.png"]
    assert len(found.warnings) == 3
    assert len(all_of(found, "0_none, backup")) == 1
    assert len(all_of(found, "2_cat: subfolders are not used")) == 1
    assert len(all_of(found, "5_empty holds no pictures (nothing)")) == 1


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".PNG", ".Jpg", ".JPEG", ".WebP", ".bMp"])
def test_endings_in_any_letter_case(tmp_path, suffix):
    picture(tmp_path / f"a{suffix}")
    text(tmp_path / "a.TXT", "found")
    assert [r.caption for r in scan(dataset(tmp_path)).records] == ["found"]


def test_size_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.jpg", (80, 40), exif=exif)
    assert [(r.width, r.height) for r in scan(dataset(tmp_path)).records] == [(40, 80)]


@pytest.mark.parametrize("folder", ["with space", "猫の写真", "Ünïcode é", "quote's & [brackets] #1 %20"])
def test_names_of_any_script(tmp_path, folder):
    path = picture(tmp_path / folder / f"{folder}.png")
    text(tmp_path / folder / f"{folder}.txt", "found")
    assert [(r.path, r.caption) for r in scan(dataset(tmp_path / folder)).records] == [(path, "found")]


def test_accents_spelled_differently_by_macos_still_match(tmp_path):
    picture(tmp_path / (unicodedata.normalize("NFC", "café") + ".png"))
    text(tmp_path / (unicodedata.normalize("NFD", "café") + ".txt"), "found")
    assert [r.caption for r in scan(dataset(tmp_path)).records] == ["found"]


def test_hidden_files_are_ignored(tmp_path):
    picture(tmp_path / "a.png")
    text(tmp_path / "._a.png", "resource fork")
    text(tmp_path / ".hidden.png", "x")
    text(tmp_path / ".DS_Store", "x")
    text(tmp_path / "._a.txt", "x")
    found = scan(dataset(tmp_path))
    assert names(found.records) == ["a.png"]
    assert found.skipped == found.warnings == ()


def test_links(tmp_path):
    picture(tmp_path / "data" / "a.png")
    picture(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "data" / "b.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "data" / "broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "data" / "2_loop").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data" / "round.png").symlink_to(tmp_path / "data" / "round.png")
    found = scan(dataset(tmp_path / "data"))
    assert {"a.png", "b.png"} <= set(names(found.records))
    assert {"broken.png", "round.png"} == set(names(found.skipped))
    assert len(all_of(found, "is in dataset.folders twice")) == 1


def test_the_order_is_by_path_whatever_the_disk_says(tmp_path):
    stems = [f"{number:03d}" for number in range(40)] + ["Z", "a", "é", "猫"]
    for stem in random.Random(1).sample(stems, len(stems)):
        picture(tmp_path / f"{stem}.png", (16, 16))
    found = scan(dataset(tmp_path))
    assert [record.path.stem for record in found.records] == stems
    assert scan(dataset(tmp_path)) == found


def test_captions_are_looked_for_in_the_order_of_the_endings(tmp_path):
    for stem in ("a", "b", "c"):
        picture(tmp_path / f"{stem}.png")
    text(tmp_path / "a.txt", "txt")
    text(tmp_path / "a.caption", "caption")
    text(tmp_path / "b.caption", "caption")
    text(tmp_path / "c.txt", "  \n")
    text(tmp_path / "c.caption", "not empty")
    found = scan(dataset(tmp_path))
    assert [(r.caption, r.caption_source) for r in found.records] == [
        ("txt", "a.txt"),
        ("caption", "b.caption"),
        ("not empty", "c.caption"),
    ]
    assert found.empty_captions == (tmp_path / "c.txt",)
    found = scan(dataset(tmp_path, captions={"extensions": ["caption"], "missing": "empty"}))
    assert [r.caption_source for r in found.records] == ["a.caption", "b.caption", "c.caption"]


@pytest.mark.parametrize(
    ("missing", "class_words", "captions", "skipped"),
    [
        ("class_words", "a cat", {"full.png": "own", "none.png": "a cat", "void.png": "a cat"}, {}),
        ("class_words", None, {"full.png": "own"}, {"none.png": "no caption file", "void.png": "void.txt is empty"}),
        ("empty", None, {"full.png": "own", "none.png": "", "void.png": ""}, {}),
        ("skip", "a cat", {"full.png": "own"}, {"none.png": "no caption file", "void.png": "void.txt is empty"}),
    ],
)
def test_missing_captions(tmp_path, missing, class_words, captions, skipped):
    for stem in ("full", "none", "void"):
        picture(tmp_path / f"{stem}.png")
    text(tmp_path / "full.txt", "own")
    text(tmp_path / "void.txt", "")
    found = scan(dataset({"path": str(tmp_path), "class_words": class_words}, captions={"missing": missing}))
    assert {r.path.name: r.caption for r in found.records} == captions
    assert set(names(found.skipped)) == set(skipped)
    for item in found.skipped:
        assert skipped[item.path.name] in item.reason
    assert found.empty_captions == (tmp_path / "void.txt",)
    assert len(all_of(found, "class_words 'a cat' are not used")) == (missing == "skip")


def test_missing_captions_can_refuse_and_all_are_listed(tmp_path):
    for stem in ("full", "none", "void"):
        picture(tmp_path / f"{stem}.png")
    text(tmp_path / "full.txt", "own")
    text(tmp_path / "void.txt", "")
    with pytest.raises(DatasetError) as error:
        scan(dataset({"path": str(tmp_path), "class_words": "a cat"}, captions={"missing": "refuse"}))
    assert "none.png: no caption file" in str(error.value)
    assert "void.txt is empty" in str(error.value)
    assert "full.png" not in str(error.value)


def test_other_encodings_are_named(tmp_path):
    picture(tmp_path / "a.png")
    text(tmp_path / "a.txt", "一只猫, 坐着", "gb18030")
    found = scan(dataset(tmp_path))
    assert [r.caption for r in found.records] == ["一只猫, 坐着"]
    assert len(all_of(found, "gb18030")) == len(all_of(found, "a.txt")) == 1


def test_captions_without_a_picture_are_listed(tmp_path):
    picture(tmp_path / "a.png")
    text(tmp_path / "a.txt")
    text(tmp_path / "typo.txt")
    assert len(all_of(scan(dataset(tmp_path)), "captions without a picture of the same name: typo.txt")) == 1


def damaged_folder(tmp_path):
    picture(tmp_path / "good.png")
    text(tmp_path / "empty.png", "")
    text(tmp_path / "text.jpg", "no picture")
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    return tmp_path


def test_damaged_pictures_are_listed_with_their_reason(tmp_path):
    found = scan(dataset(damaged_folder(tmp_path)))
    assert names(found.records) == ["good.png"]
    reasons = {item.path.name: item.reason for item in found.skipped}
    assert reasons.keys() == {"empty.png", "text.jpg", "cut.jpg"}
    assert "0 bytes" in reasons["empty.png"]
    assert "not PNG" in reasons["text.jpg"]
    assert "truncated" in reasons["cut.jpg"]


def test_damaged_pictures_can_refuse_and_all_are_listed(tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.unreadable: skip") as error:
        scan(dataset(damaged_folder(tmp_path), unreadable="refuse"))
    for name in ("empty.png", "text.jpg", "cut.jpg"):
        assert name in str(error.value)


def test_extreme_shapes_are_skipped_even_when_damage_is_refused(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "line.png", (1, 5000))
    found = scan(dataset(tmp_path, unreadable="refuse"))
    assert names(found.records) == ["a.png"]
    assert [(item.path.name, "1x5000" in item.reason) for item in found.skipped] == [("line.png", True)]


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path):
    text(tmp_path / "a.png", "")
    with pytest.raises(DatasetError, match=r"a\.png: the file is empty"):
        scan(dataset(tmp_path))


def test_a_missing_folder_names_its_neighbours(tmp_path):
    (tmp_path / "my_cats").mkdir()
    with pytest.raises(DatasetError, match=r"my_cat does not exist; .* holds my_cats"):
        scan(dataset(tmp_path / "my_cat"))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda _path: None, "found: nothing"),
        (lambda path: picture(path / "cats" / "a.png"), "subfolders cats"),
        (
            lambda path: [text(path / "a.avif"), text(path / "b.AVIF"), text(path / "c.txt")],
            "2 .avif files, 1 .txt file",
        ),
        (lambda path: (path / "10_cat").mkdir(), "subfolders 10_cat"),
    ],
)
def test_a_folder_without_pictures_says_what_is_there(tmp_path, make, found):
    make(tmp_path)
    with pytest.raises(DatasetError) as error:
        scan(dataset(tmp_path))
    assert found in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_all_wrong_folders_are_reported_at_once(tmp_path):
    text(tmp_path / "file.png")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DatasetError) as error:
        scan(dataset(tmp_path / "bare", tmp_path / "gone", tmp_path / "file.png"))
    for part in ("bare holds no pictures", "gone does not exist", "file.png is a file"):
        assert part in str(error.value)


def test_pictures_of_other_kinds_are_listed(tmp_path):
    picture(tmp_path / "a.png")
    text(tmp_path / "b.avif")
    assert len(all_of(scan(dataset(tmp_path)), "1 pictures are not used")) == 1


def test_the_same_folder_twice_counts_twice_and_says_so(tmp_path):
    picture(tmp_path / "a.png")
    found = scan(dataset(tmp_path, tmp_path / "." / ".." / tmp_path.name))
    assert names(found.records) == ["a.png", "a.png"]
    assert len(all_of(found, "twice")) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"captions": {"keep_tokens": 2, "missing": "empty"}}, "keep_tokens 2 has no effect"),
        ({"buckets": {"enabled": False, "upscale": False}, "resolution": 128}, "buckets.upscale has no effect"),
        ({"resolution": 72}, "72x72 is not a multiple of buckets.step 64; pictures of that shape are trained at 64x64"),
        ({"resolution": (16, 64), "buckets": {"enabled": False}}, "lose more than half"),
        ({}, None),
        ({"captions": {"keep_tokens": 2, "shuffle": True, "missing": "empty"}}, None),
    ],
)
def test_settings_without_effect_and_heavy_crops_are_said(tmp_path, settings, words):
    picture(tmp_path / "a.png")
    found = scan(dataset(tmp_path, **settings))
    assert len(found.warnings) == (words is not None)
    assert not words or words in found.warnings[0]


def test_wrong_bucket_settings_are_found_before_any_folder_is_read():
    with pytest.raises(ConfigError, match="min_side"):
        scan(dataset("no such folder", buckets={"min_side": 512, "max_side": 256}))


def test_stop_ends_the_scan(tmp_path):
    for number in range(30):
        picture(tmp_path / f"{number:02d}.png", (8, 8))
    answers = iter([False, False, True])
    found = scan(dataset(tmp_path, captions={"missing": "refuse"}), stop=lambda: next(answers))
    assert found.stopped
    assert names(found.records) == ["00.png", "01.png", "02.png"]
