"""Emphasis in texts: `(word)`, `(word:1.2)` and, in captions, `[word]`; the grammar of ComfyUI, with A1111's brackets added."""

from __future__ import annotations

_STRONGER = 1.1
# Marks that are meant as letters wait under code points of the private use area while the others are read.
_ESCAPED = {"\\" + mark: chr(0xE000 + number) for number, mark in enumerate("()[]")}


def weigh(text: str, brackets: bool) -> list[tuple[str, float]]:
    """Pieces of a text with their weights. A backslash makes a mark a letter; brackets count only where `brackets` says so.

    `(word)` multiplies the weight by 1.1, `[word]` divides it by 1.1, and `(word:1.2)` sets it, also inside other marks.
    Marks without a partner are letters.
    """
    marks = _ESCAPED if brackets else {mark: _ESCAPED[mark] for mark in ("\\(", "\\)")}
    for mark, letter in marks.items():
        text = text.replace(mark, letter)
    return [(_unescaped(piece), weight) for piece, weight in _weigh(text, 1.0, "([" if brackets else "(")]


def _unescaped(text: str) -> str:
    for mark, letter in _ESCAPED.items():
        text = text.replace(letter, mark[1])
    return text


def _weigh(text: str, weight: float, opening: str) -> list[tuple[str, float]]:
    result = []
    for piece in _pieces(text, opening):
        if len(piece) > 1 and piece[0] == "(" and piece[-1] == ")":
            inside, inner = _given(piece[1:-1], weight)
            result += _weigh(inside, inner, opening)
        elif len(piece) > 1 and piece[0] == "[" and piece[-1] == "]" and "[" in opening:
            result += _weigh(piece[1:-1], weight / _STRONGER, opening)
        else:
            result.append((piece, weight))
    return result


def _given(text: str, weight: float) -> tuple[str, float]:
    """What stands in front of the last colon and the number behind it, or all of it and a tenth more weight."""
    words, colon, number = text.rpartition(":")
    try:
        return (words, float(number)) if words and colon else (text, weight * _STRONGER)
    except ValueError:
        return text, weight * _STRONGER


def _pieces(text: str, opening: str) -> list[str]:
    """The outermost groups, with their marks, and what lies between them."""
    closing = "".join({"(": ")", "[": "]"}[mark] for mark in opening)
    pieces, start, depth = [], 0, 0
    for place, letter in enumerate(text):
        if letter in opening:
            if depth == 0:
                pieces.append(text[start:place])
                start = place
            depth += 1
        elif letter in closing:
            depth -= 1
            if depth == 0:
                pieces.append(text[start : place + 1])
                start = place + 1
    return [piece for piece in [*pieces, text[start:]] if piece]
