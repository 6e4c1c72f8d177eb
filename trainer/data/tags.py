"""The tags of a dataset's captions, counted and listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from ..config import DatasetSection
from .captions import tags_of
from .records import Record

Order = Literal["alphabetical", "frequency"]


def count_tags(records: Iterable[Record], config: DatasetSection) -> Counter[str]:
    """How often each tag stands in the captions of the pictures that are learned from."""
    counts: Counter[str] = Counter()
    for record in records:
        if not record.regularization:
            counts.update(tags_of(record.caption, record.caption_settings(config)))
    return counts


def in_order(counts: Mapping[str, int], order: Order) -> dict[str, int]:
    """The tags by name, or the most frequent first and those that are equally frequent by name."""
    by_name = sorted(counts, key=lambda tag: (tag.casefold(), tag))
    return {tag: counts[tag] for tag in (by_name if order == "alphabetical" else sorted(by_name, key=lambda tag: -counts[tag]))}


def tag_list(counts: Mapping[str, int], order: Order) -> str:
    """One tag a line; by frequency, the count and a tabulator stand before it."""
    lines = [f"{count}\t{tag}" if order == "frequency" else tag for tag, count in in_order(counts, order).items()]
    return "".join(f"{line}\n" for line in lines)
