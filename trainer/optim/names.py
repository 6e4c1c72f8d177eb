"""The sentence for a name that is in none of our tables."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(field: str, value: str, known: Iterable[str], what: str = "unknown") -> str:
    """For example "optimizer.kind: 'adam' is unknown; did you mean 'adamw'? Known: adamw, sgd"."""
    known = list(known)
    near = difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{field}: {value!r} is {what}{hint} Known: {', '.join(known)}"
