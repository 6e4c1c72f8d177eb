"""Captions of sd-scripts: what is put around them, and what a picture without one is trained with."""

from __future__ import annotations

import pytest

from trainer.config import from_dict
from trainer.data.captions import vary
from trainer.kohya import convert
from trainer.kohya.read import Options

BASE = {"pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "train", "resolution": "512", "shuffle_caption": True}


def imported(**values):
    return convert(Options({**BASE, **values}))


def described(*subsets, **values):
    return convert(Options({"pretrained_model_name_or_path": "m.safetensors", "resolution": "512", **values}, subsets=list(subsets)))


@pytest.mark.parametrize(
    ("prefix", "kept", "here", "fixed"),
    [
        ("sks girl,", 1, 0, ["sks girl"]),
        ("sks girl,", 3, 2, ["sks girl", "a", "b"]),
        ("sks, girl,", 3, 1, ["sks", "girl", "a"]),
        ("sks girl", 1, 1, ["sks girl a"]),  # not a tag of its own: the caption's first tag goes on with it
        ("sks, girl", 2, 1, ["sks", "girl a"]),
        ("sks, girl,", 1, 0, ["sks", "girl"]),
    ],
)
def test_tags_of_a_prefix_count_there(prefix, kept, here, fixed):
    found = imported(caption_prefix=prefix, keep_tokens=kept)
    captions = from_dict(found.values).dataset.captions
    assert (captions.keep_tokens, captions.prefix) == (here, prefix)
    for seed in range(20):
        assert vary("a, b, c, d", captions, seed, 1).split(", ")[: len(fixed)] == fixed
    words = f"keep_tokens: {kept} there, with the tags of caption_prefix; {here} here, where it always stays"
    assert (words in found.different) == (here != kept)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"caption_prefix": "sks girl"}, "caption_prefix"),
        ({"caption_prefix": "sks, girl,", "keep_tokens": 1}, "caption_prefix"),
        ({"caption_suffix": ", best"}, "caption_suffix"),
        ({"caption_prefix": "sks,", "caption_suffix": ", best", "shuffle_caption": False, "caption_tag_dropout_rate": 0.1},
         "caption_prefix, caption_suffix"),
        ({"caption_prefix": "sks,", "caption_suffix": ", best", "keep_tokens": 1}, "caption_suffix"),
        ({"caption_prefix": "sks girl,", "keep_tokens": 1}, None),
        ({"caption_prefix": "sks |||", "caption_suffix": "||| best", "keep_tokens_separator": "|||"}, None),
        ({"caption_prefix": "sks", "caption_suffix": "best", "shuffle_caption": False}, None),
        ({"keep_tokens": 2}, None),
    ],
)  # fmt: skip
def test_what_is_shuffled_there_and_stays_here_is_said(values, names):
    said = [text for text in imported(**values).different if "tags like others there" in text]
    assert said == ([f"{names}: tags like others there where keep_tokens does not reach; here they stay at the ends"] if names else [])


def test_a_mark_in_the_prefix_leaves_keep_tokens_as_it_is():
    found = imported(caption_prefix="sks, girl |||", keep_tokens=2, keep_tokens_separator="|||")
    assert found.get("dataset.captions.keep_tokens") == 2
    unclear = imported(caption_prefix="sks,", keep_tokens="many")
    assert any(text.startswith("keep_tokens = 'many': ") for text in unclear.unknown)


@pytest.mark.parametrize(
    ("subsets", "missing"),
    [
        ([{"image_dir": "a"}, {"image_dir": "b"}], "empty"),
        ([{"image_dir": "a"}, {"image_dir": "reg", "is_reg": True, "class_tokens": "cat"}], "empty"),
        ([{"image_dir": "a", "class_tokens": "sks cat"}], None),
        ([{"image_dir": "a", "class_tokens": "sks cat"}, {"image_dir": "b"}], None),
        ([{"image_dir": "a", "class_tokens": "sks cat"}, {"image_dir": "b", "is_reg": True}], None),
    ],
)
def test_without_class_tokens_a_described_folder_trains_empty_captions(subsets, missing):
    found = described(*subsets)
    assert found.get("dataset.captions.missing") == missing
    words = "b: without class_tokens, a picture without a caption gets an empty one there; not here"
    assert (words in found.different) == (subsets[-1]["image_dir"] == "b" and missing is None)
    assert imported().get("dataset.captions.missing") is None


def test_several_lines_of_a_caption_are_said_once():
    words = "captions: of several lines, the scripts read the first; here all are joined"
    assert imported().different.count(words) == 1
    assert described({"image_dir": "a"}, {"image_dir": "b"}).different.count(words) == 1
    assert words not in imported(enable_wildcard=True).different
    assert words not in convert(Options({"network_dim": 8})).different


def test_no_repeats_leave_a_folder_out():
    found = described({"image_dir": "a"}, {"image_dir": "b", "num_repeats": 0})
    assert [folder["path"] for folder in found.get("dataset.folders")] == ["a"]
    assert "b: num_repeats 0 leaves the folder out; so it is here" in found.needless
    assert described({"image_dir": "b", "num_repeats": "0"}).missing == ["dataset.folders"]
