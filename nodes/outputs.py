"""Types of outputs."""

from __future__ import annotations


class AnyName(str):
    """A link type that the server accepts wherever the browser let it be connected.

    The server compares the type of an output with an input's list of names, which differs as soon as a file is added.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return False
