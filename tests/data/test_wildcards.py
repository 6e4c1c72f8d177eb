"""Wildcards: every text that can come out, on literal strings."""

from __future__ import annotations

import random

import pytest

from trainer.data.wildcards import expand, has_lone_brace, has_wildcards, resolve

CASES = [
    ("a cat", ["a cat"]),
    ("a {red|blue} cat", ["a red cat", "a blue cat"]),
    ("{ red | blue }", ["red", "blue"]),
    ("{a|{b|c}}", ["a", "b", "c"]),
    ("{x {a|b}|c} {d|e}", ["x a d", "x a e", "x b d", "x b e", "c d", "c e"]),
    ("{a}", ["a"]),
    ("{|very} big", [" big", "very big"]),
    ("{}", [""]),
    ("{{a|b}}", ["{a|b}"]),
    ("{{{a|b}}}", ["{a}", "{b}"]),
    ("an open { brace", ["an open { brace"]),
    ("a } b", ["a } b"]),
    ("{a|{b}", ["{a|b"]),
    ("one|two", ["one|two"]),
    ("{猫|犬}", ["猫", "犬"]),
    ("", [""]),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_every_text_and_no_other(text, expected):
    assert expand(text, 100) == expected
    assert resolve(text, lambda _count: 0) == expected[0]
    assert resolve(text, lambda count: count - 1) == expected[-1]
    rng = random.Random(1)
    assert {resolve(text, rng.randrange) for _ in range(300)} == set(expected)
    assert has_wildcards(text) == (expected != [text])


@pytest.mark.parametrize(
    ("text", "lone"),
    [
        ("a cat", False),
        ("{red|blue}", False),
        ("{a|{b|c}} {d}", False),
        ("{{a}}", False),
        ("{{{a|b}}}", False),
        ("{}", False),
        ("an open { brace", True),
        ("a } b", True),
        ("{a|{b}", True),
        ("{a} }", True),
        ("{{a}", True),
    ],
)
def test_braces_without_a_partner(text, lone):
    assert has_lone_brace(text) == lone


def test_long_texts():
    text = "a" * 5000 + "{b|c}" * 20 + "d" * 5000
    assert expand(text, 1) == ["a" * 5000 + "b" * 20 + "d" * 5000]


def test_the_list_is_cut():
    assert expand("{a|b}" * 20, 5) == ["a" * 20, "a" * 19 + "b", "a" * 18 + "ba", "a" * 18 + "bb", "a" * 17 + "baa"]
