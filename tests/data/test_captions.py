"""Captions: encodings of literal bytes, and each way of varying them."""

from __future__ import annotations

import random

import pytest

from trainer.config import CaptionSection
from trainer.data import captions
from trainer.data.captions import plain, plain_texts, read_caption, tags_of, texts_in_use, varies, vary, without_effect, without_frame
from trainer.seeds import derive

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
    assert vary(text, config, 1, 1) == text


@pytest.mark.parametrize("keep", [0, 1, 3, 6, 75])
def test_shuffle_keeps_the_first_tags(keep):
    config = CaptionSection(shuffle=True, keep_tokens=keep)
    assert varies(config)
    tags = TAGS.split(", ")
    results = {vary(TAGS, config, seed, 1) for seed in range(50)}
    for result in results:
        assert result.split(", ")[:keep] == tags[:keep]
        assert sorted(result.split(", ")) == sorted(tags)
    assert (len(results) > 1) == (keep < len(tags) - 1)


@pytest.mark.parametrize(
    ("text", "separator", "tags"),
    [("a,b,,  c ,", ",", {"a", "b", "c"}), ("a, b|c", "|", {"a, b", "c"}), ("one", ",", {"one"}), ("", ",", set())],
)
def test_shuffle_splits_at_the_separator_and_joins_with_comma_and_space(text, separator, tags):
    result = vary(text, CaptionSection(shuffle=True, separator=separator), 3, 1)
    assert result in {", ".join(order) for order in (sorted(tags), sorted(tags, reverse=True))} or len(tags) > 2
    assert len(result) == len(", ".join(tags))


def test_shuffle_depends_on_the_seed_alone():
    config = CaptionSection(shuffle=True)
    state = random.getstate()
    first = vary(TAGS, config, 7, 1)
    assert random.getstate() == state
    random.seed(123)
    assert vary(TAGS, config, 7, 1) == first


def test_the_shuffle_is_that_of_earlier_versions():
    """Its random numbers are those of (seed, "caption"), so that runs of earlier versions can be repeated."""
    tags = TAGS.split(", ")
    random.Random(derive(5, "caption")).shuffle(tags)
    assert vary(TAGS, CaptionSection(shuffle=True), 5, 1) == ", ".join(tags)


@pytest.mark.parametrize(
    ("caption", "head", "flexible", "tail"),
    [
        ("cat, sks ||| a, b, c ||| best, good", ["cat", "sks"], {"a", "b", "c"}, ["best", "good"]),
        ("cat|||a,b,c", ["cat"], {"a", "b", "c"}, []),
        ("|||a, b|||end", [], {"a", "b"}, ["end"]),
        ("x ||| a, b ||| y ||| z", ["x"], {"a", "b"}, ["y", "z"]),
        ("k, a, b, c", ["k"], {"a", "b", "c"}, []),  # no mark: keep_tokens counts
    ],
)
def test_tags_are_fixed_by_the_mark(caption, head, flexible, tail):
    config = CaptionSection(shuffle=True, keep_tokens=1, keep_tokens_separator="|||")
    results = {vary(caption, config, seed, 1) for seed in range(40)}
    assert len(results) > 1
    for result in results:
        tags = result.split(", ")
        assert (tags[: len(head)], tags[len(tags) - len(tail) :]) == (head, tail)
        assert set(tags[len(head) : len(tags) - len(tail)]) == flexible and len(tags) == len(head) + len(flexible) + len(tail)


@pytest.mark.parametrize(("caption", "text"), [("cat, ||| a,b , ||| end", "cat, a,b, end"), ("||| a", "a"), ("a  b", "a  b")])
def test_without_shuffle_the_mark_is_only_taken_out(caption, text):
    config = CaptionSection(keep_tokens_separator="|||")
    assert vary(caption, config, 1, 1) == plain(caption, config) == text


@pytest.mark.parametrize(
    ("prefix", "suffix", "head", "flexible", "tail"),
    [
        ("sks girl |||", "", ["sks girl"], {"a", "b", "c"}, []),
        ("sks girl ||| smile,", "", ["sks girl"], {"smile", "a", "b", "c"}, []),
        ("sks |||", "||| best", ["sks"], {"a", "b", "c"}, ["best"]),
        ("", "||| end", ["a", "b", "c"], {"end"}, []),
    ],
)
def test_a_mark_in_prefix_or_suffix_is_one_of_the_caption(prefix, suffix, head, flexible, tail):
    config = CaptionSection(prefix=prefix, suffix=suffix, shuffle=True, keep_tokens_separator="|||")
    for seed in range(40):
        tags = vary("a, b, c", config, seed, 1).split(", ")
        assert (tags[: len(head)], tags[len(tags) - len(tail) :]) == (head, tail)
        assert set(tags[len(head) : len(tags) - len(tail)]) == flexible
    still = config.model_copy(update={"shuffle": False})
    assert "|" not in plain("a, b, c", still) and plain("a, b, c", still) == plain("a, b, c", config)
    assert not any("no caption holds it" in text for text in without_effect(config, ["a, b, c"]))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_dropout_is_a_share_of_uses_and_changes_no_other_text(share):
    plain_shuffle, config = CaptionSection(shuffle=True), CaptionSection(shuffle=True, dropout=share, prefix="x")
    texts = [vary(TAGS, config, seed, 1) for seed in range(2000)]
    # 2000 draws: standard deviation of the share is sqrt(0.3 * 0.7 / 2000) = 0.0102; four of them
    assert abs(texts.count("") / 2000 - share) < 0.041
    assert all(text in ("", "x " + vary(TAGS, plain_shuffle, seed, 1)) for seed, text in enumerate(texts))


def test_dropout_every_epochs_counts_from_one():
    config = CaptionSection(dropout_every_epochs=3)
    assert [vary("a", config, 1, epoch) for epoch in range(1, 8)] == ["a", "a", "", "a", "a", "", "a"]


def test_leaving_out_a_tag_has_nothing_to_do_with_leaving_out_the_caption():
    """Every tag is in half of the half that has a caption."""
    texts = [vary("a, b, c", CaptionSection(dropout=0.5, tag_dropout=0.5), seed, 1).split(", ") for seed in range(2000)]
    shares = [sum(tag in text for text in texts) / 2000 for tag in "abc"]
    assert shares == pytest.approx([0.25] * 3, abs=0.039)  # four standard deviations of sqrt(1/4 * 3/4 / 2000)


def test_tag_dropout_leaves_out_flexible_tags_alone():
    config = CaptionSection(tag_dropout=0.25, keep_tokens=2)
    texts = [vary(TAGS, config, seed, 1).split(", ") for seed in range(1000)]
    tags = TAGS.split(", ")
    for text in texts:
        assert text[:2] == tags[:2]
        assert text == [tag for tag in tags if tag in text], "the order is that of the file"
    left = sum(6 - len(text) for text in texts) / 4000
    assert abs(left - 0.25) < 0.028  # four standard deviations of 4000 draws
    assert {tag for text in texts for tag in text} == set(tags)
    assert vary(TAGS, CaptionSection(tag_dropout=1.0, keep_tokens_separator="|||"), 1, 1) == ""


@pytest.mark.parametrize(
    ("prefix", "text", "suffix", "expected"),
    [
        ("sks cat,", "red, blue", "", "sks cat, red, blue"),
        ("a photo of", "a cat", "in the style of xyz", "a photo of a cat in the style of xyz"),
        ("", "red", ", best", "red, best"),
        (" x, ", "red", " , y ", "x, red, y"),
        ("sks,", "", "", "sks"),
        ("", "", ", best", "best"),
        ("sks,", "", ", best", "sks, best"),
        ("", "a,  b", "", "a,  b"),
    ],
)
def test_prefix_and_suffix(prefix, text, suffix, expected):
    config = CaptionSection(prefix=prefix, suffix=suffix)
    assert not varies(config)
    assert vary(text, config, 1, 1) == plain(text, config) == expected
    assert texts_in_use([(text, config)]) == {expected}
    assert plain(text, without_frame(config)) == text


def test_prefix_and_suffix_stay_at_the_ends():
    config = CaptionSection(prefix="p,", suffix=", s", shuffle=True, tag_dropout=0.9)
    for seed in range(50):
        tags = vary(TAGS, config, seed, 1).split(", ")
        assert (tags[0], tags[-1]) == ("p", "s")


def test_of_several_lines_one_is_used_with_wildcards(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one {cat|dog}\n\n  two  \nthree\n", encoding="utf-8")
    text, _ = read_caption(path, keep_lines=True)
    config = CaptionSection(wildcards=True)
    assert varies(config)
    assert {vary(text, config, seed, 1) for seed in range(100)} == {"one cat", "one dog", "two", "three"}
    assert set(plain_texts(text, config)) == {"one cat", "one dog", "two", "three"}
    assert plain(text, config) == "one cat"
    assert read_caption(path)[0] == "one {cat|dog} two three"


def test_without_wildcards_braces_are_letters():
    assert vary("{a|b} {{c}}", CaptionSection(), 1, 1) == "{a|b} {{c}}"


def test_wildcards_come_before_tags_and_are_in_prefix_and_suffix():
    config = CaptionSection(wildcards=True, shuffle=True, prefix="{A|B},", suffix=", {C|D}")
    texts = {vary("{x, y|z}", config, seed, 1) for seed in range(200)}
    assert texts == {f"{a}, {m}, {b}" for a in "AB" for b in "CD" for m in ("x, y", "y, x", "z")}
    assert plain("{x, y|z}", config) == "A, x, y, C"
    assert set(tags_of("{x, y|z}", config)) == {"A", "B", "C", "D", "x", "y", "z"}


@pytest.mark.parametrize(
    ("settings", "listed"),
    [
        ({}, True),
        ({"prefix": "a", "suffix": "b"}, True),
        ({"keep_tokens_separator": "|||", "keep_tokens": 2}, True),
        ({"dropout": 0.5}, True),
        ({"dropout_every_epochs": 2}, True),
        ({"shuffle": True}, False),
        ({"tag_dropout": 0.1}, False),
        ({"wildcards": True}, False),
    ],
)
def test_texts_can_be_listed_beforehand_or_the_setting_is_said_to_vary(settings, listed):
    config = CaptionSection(**settings)
    captions = ["a, {b|c}, d", "e ||| f, g"]
    assert varies(config) == (not listed)
    seen = {vary(caption, config, seed, epoch) for caption in captions for seed in range(40) for epoch in (1, 2)}
    if listed:
        assert seen == texts_in_use([(caption, config) for caption in captions])
    else:
        assert not seen <= texts_in_use([(caption, config) for caption in captions])


def test_a_brace_without_a_partner_is_said():
    found = without_effect(CaptionSection(wildcards=True, suffix="}"), ["a {red|blue} cat", "a {red cat"])
    assert found == [
        "dataset.captions.wildcards: 2 texts have a brace without a partner, which stays a letter, for example 'a {red cat'; "
        "write {{ or }} for a brace that is meant"
    ]
    assert without_effect(CaptionSection(), ["a {red cat"]) == []


@pytest.mark.parametrize(
    ("settings", "captions", "words"),
    [
        ({"keep_tokens": 1}, ["a"], "keep_tokens 1 has no effect"),
        ({"keep_tokens": 1, "tag_dropout": 0.1}, ["a"], None),
        ({"keep_tokens": 1, "shuffle": True, "keep_tokens_separator": "#"}, ["a # b"], "in every caption counts instead"),
        ({"keep_tokens": 1, "shuffle": True, "keep_tokens_separator": "#"}, ["a # b", "c"], None),
        ({"keep_tokens_separator": "#", "shuffle": True}, ["a, b"], "no caption holds it"),
        ({"keep_tokens_separator": "#"}, ["a # b"], "only taken out"),
        ({"keep_tokens": 1, "shuffle": True, "keep_tokens_separator": "#", "prefix": "x #"}, ["a, b"], "in every caption counts instead"),
        ({"keep_tokens_separator": "#", "shuffle": True, "suffix": "# x"}, ["a, b"], None),
        ({"wildcards": True}, ["a, b"], "wildcards has no effect"),
        ({"wildcards": True}, ["a, b", "{x}"], None),
        ({"wildcards": True, "prefix": "{a|b}"}, ["a, b"], None),
        ({"wildcards": True}, ["a\nb"], None),
        ({"dropout": 0.1, "dropout_every_epochs": 2, "prefix": "a", "suffix": "b", "shuffle": True, "tag_dropout": 0.1}, ["a"], None),
    ],
)
def test_settings_without_effect_are_said(settings, captions, words):
    found = without_effect(CaptionSection(**settings), captions)
    assert len(found) == (words is not None)
    assert not words or words in found[0]
