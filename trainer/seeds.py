"""Randomness as a function of named parts, so that a resumed run needs no history."""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any parts, for example `derive(seed, "noise", step, sample)`; equal parts give equal seeds everywhere."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
