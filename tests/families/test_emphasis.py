"""The grammar of emphasis, by examples worked out by hand."""

from __future__ import annotations

import pytest

from trainer.families.emphasis import weigh


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a cat", [("a cat", 1.0)]),
        ("a (red) cat", [("a ", 1.0), ("red", 1.1), (" cat", 1.0)]),
        ("((red))", [("red", 1.21)]),
        ("(red:1.5)", [("red", 1.5)]),
        ("((red:1.5) cat)", [("red", 1.5), (" cat", 1.1)]),
        ("(a:b:0.5)", [("a:b", 0.5)]),
        ("(a: b)", [("a: b", 1.1)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        (r"\(red\) (cat)", [("(red) ", 1.0), ("cat", 1.1)]),
        ("a (red cat", [("a ", 1.0), ("(red cat", 1.0)]),
        ("a red) cat", [("a red) cat", 1.0)]),
        ("[dog]", [("[dog]", 1.0)]),
    ],
)
def test_parentheses(text, expected):
    found = weigh(text, brackets=False)
    assert [piece for piece, _ in found] == [piece for piece, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a [red] cat", [("a ", 1.0), ("red", 1 / 1.1), (" cat", 1.0)]),
        ("[[red]]", [("red", 1 / 1.21)]),
        ("([red])", [("red", 1.0)]),
        (r"\[red\]", [("[red]", 1.0)]),
        ("(red]", [("(red]", 1.0)]),
    ],
)
def test_brackets(text, expected):
    found = weigh(text, brackets=True)
    assert [piece for piece, _ in found] == [piece for piece, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])
