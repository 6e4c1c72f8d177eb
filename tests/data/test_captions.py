"""Captions: encodings of literal bytes, and the shuffle."""

from __future__ import annotations

import random

import pytest

from trainer.config import CaptionSection
from trainer.data import captions
from trainer.data.captions import read_caption, varies, vary

TAGS = "sks cat, sitting, red hat, outdoors, tree, sky"


@pytest.fixture(autouse=True)
def western_linux(monkeypatch):
    monkeypatch.setattr(captions.locale, "getpreferredencoding", lambda *_args: "utf-8")


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        (b"a cat", "a cat", None),
        ("一只猫, caf\u00e9".encode(), "一只猫, café", None),
        (b"\xef\xbb\xbfa cat", "a cat", None),
        ("a cat, 猫".encode("utf-16"), "a cat, 猫", "utf-16"),
        ("一只猫, 坐着".encode("gb18030"), "一只猫, 坐着", "gb18030"),
        ("Müller, café".encode("cp1252"), "Müller, café", "cp1252"),
        (b"a\x81b", "a\x81b", "latin-1"),
        (b"", "", None),
        (b" \r\n\t\n", "", None),
        (b"  first line \r\nsecond line\n\n", "first line second line", None),
    ],
)
def test_read_caption(tmp_path, data, text, encoding):
    path = tmp_path / "ein Bild.txt"
    path.write_bytes(data)
    found, warning = read_caption(path)
    assert found == text
    if encoding is None:
        assert warning is None
    else:
        assert str(path) in warning
        assert encoding in warning


def test_the_systems_own_encoding_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(captions.locale, "getpreferredencoding", lambda *_args: "cp932")
    path = tmp_path / "a.txt"
    path.write_bytes("猫が座る".encode("cp932"))
    text, warning = read_caption(path)
    assert text == "猫が座る"
    assert "cp932" in warning


@pytest.mark.parametrize("text", [TAGS, "a,b ,  c", "A photo, taken by me.", "", ",,"])
def test_without_variation_text_is_unchanged(text):
    config = CaptionSection(keep_tokens=1)
    assert not varies(config)
    assert vary(text, config, random.Random(1)) == text


@pytest.mark.parametrize("keep", [0, 1, 3, 6, 75])
def test_shuffle_keeps_the_first_tags(keep):
    config = CaptionSection(shuffle=True, keep_tokens=keep)
    assert varies(config)
    tags = TAGS.split(", ")
    results = {vary(TAGS, config, random.Random(seed)) for seed in range(50)}
    for result in results:
        assert result.split(", ")[:keep] == tags[:keep]
        assert sorted(result.split(", ")) == sorted(tags)
    assert (len(results) > 1) == (keep < len(tags) - 1)


@pytest.mark.parametrize(
    ("text", "separator", "tags"),
    [("a,b,,  c ,", ",", {"a", "b", "c"}), ("a, b|c", "|", {"a, b", "c"}), ("one", ",", {"one"}), ("", ",", set())],
)
def test_shuffle_splits_at_the_separator_and_joins_with_comma_and_space(text, separator, tags):
    result = vary(text, CaptionSection(shuffle=True, separator=separator), random.Random(3))
    assert result in {", ".join(order) for order in (sorted(tags), sorted(tags, reverse=True))} or len(tags) > 2
    assert len(result) == len(", ".join(tags))


def test_shuffle_depends_on_the_given_rng_alone():
    config = CaptionSection(shuffle=True)
    state = random.getstate()
    first = vary(TAGS, config, random.Random(7))
    assert random.getstate() == state
    random.seed(123)
    assert vary(TAGS, config, random.Random(7)) == first
