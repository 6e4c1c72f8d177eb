"""Tag lists of literal captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import DatasetSection
from trainer.data.records import Record
from trainer.data.tags import count_tags, in_order, tag_list


def record(caption, **more):
    return Record(Path("a.png"), caption, "a.txt", 64, 64, 3, Path(), "", **more)


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ({}, {"b": 2, "A": 2, "c d": 1}),
        ({"prefix": "sks,"}, {"sks": 2, "b": 2, "A": 2, "c d": 1}),
        ({"separator": " "}, {"b,": 1, "A,": 2, "c": 1, "d": 1, "b": 1}),
    ],
)
def test_counts_of_pictures_that_are_learned_from(captions, expected):
    dataset = DatasetSection(folders=({"path": "x"},), captions=captions)
    assert count_tags([record("b, A, c d"), record("A, b"), record("cat", regularization=True)], dataset) == expected


def test_order():
    counts = {"b": 2, "A": 2, "c": 7, "a": 1}
    assert list(in_order(counts, "alphabetical")) == ["A", "a", "b", "c"]
    assert list(in_order(counts, "frequency")) == ["c", "A", "b", "a"]
    assert tag_list(counts, "alphabetical") == "A\na\nb\nc\n"
    assert tag_list(counts, "frequency") == "7\tc\n2\tA\n2\tb\n1\ta\n"
    assert tag_list({}, "frequency") == ""


def test_every_tag_of_wildcards_once():
    dataset = DatasetSection(folders=({"path": "x"},), captions={"wildcards": True})
    assert count_tags([record("{a|b}, c\nd, c")], dataset) == {"a": 1, "b": 1, "c": 1, "d": 1}
