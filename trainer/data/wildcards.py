"""`{red|blue}` in captions: one of several texts. Alternatives may hold further ones; outside of them `{{` and `}}` are plain braces."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class _Choice:
    """Alternatives, each a sequence of texts and further choices."""

    alternatives: tuple[_Sequence, ...]


_Sequence = tuple["str | _Choice", ...]


def has_wildcards(text: str) -> bool:
    """Whether the text holds alternatives, or doubled braces that become single ones."""
    return resolve(text, lambda _count: 0) != text


def has_lone_brace(text: str) -> bool:
    """Whether a brace has no partner; it stays a letter, which is seldom meant."""
    position = 0
    while position < len(text):
        if text[position : position + 2] in ("{{", "}}"):
            position += 2
        elif text[position] == "{" and (found := _choice(text, position + 1)):
            position = found[1]
        elif text[position] in "{}":
            return True
        else:
            position += 1
    return False


def resolve(text: str, pick: Callable[[int], int]) -> str:
    """The text with each choice replaced by the alternative that `pick(number of alternatives)` names, without outer spaces.

    A brace without a partner stays as it is.
    """
    return _resolve(_parse(text), pick)


def expand(text: str, limit: int) -> list[str]:
    """Every text that `resolve` can give, up to `limit` of them, the one of first alternatives first."""
    return list(dict.fromkeys(itertools.islice(_expand(_parse(text)), limit)))


def _resolve(sequence: _Sequence, pick: Callable[[int], int]) -> str:
    return "".join(
        part if isinstance(part, str) else _resolve(part.alternatives[pick(len(part.alternatives))], pick).strip() for part in sequence
    )


def _expand(sequence: _Sequence) -> Iterator[str]:
    if not sequence:
        yield ""
        return
    first, rest = sequence[0], sequence[1:]
    heads = [first] if isinstance(first, str) else (text.strip() for part in first.alternatives for text in _expand(part))
    for head in heads:
        for tail in _expand(rest):
            yield head + tail


def _parse(text: str) -> _Sequence:
    parts: list[str | _Choice] = []
    position = 0
    while position < len(text):
        if text[position : position + 2] in ("{{", "}}"):
            _add(parts, text[position])
            position += 2
        elif text[position] == "{" and (found := _choice(text, position + 1)):
            choice, position = found
            parts.append(choice)
        else:
            _add(parts, text[position])
            position += 1
    return tuple(parts)


def _choice(text: str, position: int) -> tuple[_Choice, int] | None:
    """The choice whose inside begins at `position`, and where the text goes on behind it; None where it is never closed."""
    alternatives: list[list[str | _Choice]] = [[]]
    while position < len(text):
        letter = text[position]
        position += 1
        if letter == "}":
            return _Choice(tuple(tuple(parts) for parts in alternatives)), position
        if letter == "|":
            alternatives.append([])
        elif letter == "{":
            found = _choice(text, position)
            if found is None:
                return None
            inner, position = found
            alternatives[-1].append(inner)
        else:
            _add(alternatives[-1], letter)
    return None


def _add(parts: list[str | _Choice], letter: str) -> None:
    """Append a letter to the text at the end."""
    if parts and isinstance(last := parts[-1], str):
        parts[-1] = last + letter
    else:
        parts.append(letter)
