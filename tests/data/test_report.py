"""The report: every number follows from a small dataset that can be counted by hand."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from trainer.config import DatasetSection
from trainer.data.buckets import place
from trainer.data.records import scan
from trainer.data.report import LISTED, BucketCount, describe_dataset, find_duplicates
from trainer.data.sampler import plan_epoch


def picture(path, size, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def config(tmp_path):
    """3 square and 1 wide picture, 2 repeats each, in one folder; 1 square picture with 5 repeats in another."""
    picture(tmp_path / "2_red_fox" / "a.png", (512, 512), "red")
    picture(tmp_path / "2_red_fox" / "b.png", (600, 600), "red")
    picture(tmp_path / "2_red_fox" / "c.png", (256, 256), "blue")
    picture(tmp_path / "2_red_fox" / "d.png", (2000, 500), "blue")
    picture(tmp_path / "5_猫" / "a copy.png", (512, 512), "red")
    (tmp_path / "2_red_fox" / "broken.png").write_bytes(b"")
    (tmp_path / "2_red_fox" / "a.txt").write_text("one two three", encoding="utf-8")
    (tmp_path / "2_red_fox" / "b.caption").write_text("one two three four five", encoding="utf-8")
    (tmp_path / "2_red_fox" / "c.txt").write_text("", encoding="utf-8")
    return DatasetSection(folders=({"path": str(tmp_path)},), resolution=512, batch_size=4)


@pytest.fixture
def report(config):
    return describe_dataset(scan(config), config, count_tokens=lambda text: len(text.split()), token_limit=4)


def test_counts(report, tmp_path):
    assert report.images == 5
    assert report.samples_per_epoch == 4 * 2 + 5
    # 3 x 2 + 5 = 11 square samples in batches of 4, and 2 wide ones
    assert report.buckets == (BucketCount((512, 512), 4, 11, 3), BucketCount((1024, 256), 1, 2, 1))
    assert report.batches_per_epoch == 4
    assert report.caption_sources == {".txt": 1, ".caption": 1, "class words": 3}
    assert report.empty_captions == (tmp_path / "2_red_fox" / "c.txt",)
    assert report.enlarged == (tmp_path / "2_red_fox" / "c.png",)
    assert [item.path.name for item in report.skipped] == ["broken.png"]
    assert report.duplicates == ((tmp_path / "2_red_fox" / "a.png", tmp_path / "5_猫" / "a copy.png"),)


def test_batches_are_those_that_the_sampler_makes(report, config):
    records = scan(config).records
    buckets = [place(record.width, record.height, config).bucket for record in records]
    plan = plan_epoch(buckets, [record.repeats for record in records], config.batch_size, seed=1, epoch=0)
    assert len(plan) == report.batches_per_epoch
    assert sum(len(batch) for batch in plan) == report.samples_per_epoch


def test_tokens_against_the_limit(report, config):
    assert [(item.path.name, item.tokens) for item in report.caption_lengths] == [
        ("a.png", 3),
        ("b.png", 5),
        ("c.png", 2),
        ("d.png", 2),
        ("a copy.png", 1),
    ]
    assert [(item.path.name, item.tokens) for item in report.over_limit] == [("b.png", 5)]
    without = describe_dataset(scan(config), config)
    assert without.caption_lengths == without.over_limit == ()
    assert without.token_limit == 75


def test_as_dict_is_json(report):
    values = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert values == report.as_dict()
    assert values["images"] == 5
    assert values["buckets"][1] == {"size": [1024, 256], "images": 1, "samples": 2, "batches": 1}
    assert [len(group) for group in values["duplicates"]] == [2]
    assert values["captions_over_limit"][0]["tokens"] == 5
    assert values["skipped"][0]["reason"] == "the file is empty (0 bytes)"


def test_lines_tell_everything(report, tmp_path):
    lines = report.lines()
    assert lines[0] == "5 pictures, 13 samples per epoch with repeats, 4 batches of up to 4"
    text = "\n".join(lines)
    folder = tmp_path / "2_red_fox"
    for part in (
        "3 from class words",
        "empty caption files (1):",
        str(folder / "c.txt"),
        "longest caption: 5 tokens, 4 fit",
        f"{folder / 'b.png'}: 5 tokens",
        "  512x512: 4, 11, 3",
        "  1024x256: 1, 2, 1",
        f"{folder / 'broken.png'}: the file is empty (0 bytes)",
        f"{folder / 'a.png'} = {tmp_path / '5_猫' / 'a copy.png'}",
    ):
        assert part in text


def test_long_lists_are_cut_with_a_count(tmp_path):
    for number in range(LISTED + 3):
        (tmp_path / f"{number:02d}.png").write_bytes(b"")
    picture(tmp_path / "good.png", (64, 64), "red")
    config = DatasetSection(folders=({"path": str(tmp_path)},), resolution=64, captions={"missing": "empty"})
    lines = describe_dataset(scan(config), config).lines()
    start = lines.index(f"skipped ({LISTED + 3}):")
    assert lines[start + LISTED + 1] == "  and 3 more"


def test_duplicates_are_different_files_with_equal_bytes(tmp_path):
    """Two of four pictures of the same size; a folder that is given twice makes no duplicates."""
    for name, colour in {"a": "red", "b": "blue", "c": "red", "d": "green"}.items():
        picture(tmp_path / f"{name}.png", (64, 64), colour)
    config = DatasetSection(folders=({"path": str(tmp_path)},) * 2, resolution=64, captions={"missing": "empty"})
    assert find_duplicates(scan(config).records) == ((tmp_path / "a.png", tmp_path / "c.png"),)


def test_held_out_pictures_are_looked_at_but_not_counted_as_trained(config):
    found = scan(config)
    wide = next(record for record in found.records if record.path.name == "d.png")
    report = describe_dataset(found, config, lambda text: len(text.split()), 4, held_out=(wide,))
    assert (report.images, report.samples_per_epoch, report.batches_per_epoch) == (4, 3 * 2 + 5, 3)
    assert report.buckets == (BucketCount((512, 512), 4, 11, 3),)
    assert wide.path in {item.path for item in report.caption_lengths}
