"""Which layers of a model an adapter joins, and the rank and alpha of those that have none of their own block."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from ..config import AdapterSection
from ..errors import ConfigError
from ..families import AdapterTarget

_GLOB = re.compile(r"[*?\[]")


def choose_targets(section: AdapterSection, targets: Iterable[AdapterTarget]) -> list[AdapterTarget]:
    """The layers that are trained, in the targets' order.

    Layers of kind "conv" join where `conv_rank` or ranks of convolutions by block are set. ConfigError where a pattern of
    `include` or `exclude` fits no layer, or where none is left.
    """
    trained = [target for target in targets if _is_trained(section, target)]
    joining = [target for target in trained if target.kind == "plain" or trains_convolutions(section)]
    problems = _unmatched(section, joining, trained)
    chosen = [target for target in joining if _is_wanted(section, target.key)]
    if not chosen and not problems:
        problems = ["method: include and exclude leave no layer to train; loosen one of them"]
    if problems:
        raise ConfigError(problems)
    return chosen


def trains_convolutions(section: AdapterSection) -> bool:
    return section.conv_rank is not None or bool(section.blocks.conv_ranks.strip())


def rank_and_alpha(section: AdapterSection, spatial: bool) -> tuple[int, float]:
    """Those of a layer; kohya's rule: `conv_rank` and `conv_alpha` count for kernels larger than 1x1 alone."""
    if not spatial or section.conv_rank is None:
        return section.rank, section.alpha
    return section.conv_rank, section.alpha * section.conv_rank / section.rank if section.conv_alpha is None else section.conv_alpha


def matches(pattern: str, key: str) -> bool:
    """Whether a pattern fits a saved key: as a shell glob over the whole key if it has *, ? or [, else as a part of it."""
    return fnmatchcase(key, pattern) if _GLOB.search(pattern) else pattern in key


def _is_trained(section: AdapterSection, target: AdapterTarget) -> bool:
    return section.train_unet if target.part == "unet" else section.train_text_encoder


def _is_wanted(section: AdapterSection, key: str) -> bool:
    included = not section.include or any(matches(pattern, key) for pattern in section.include)
    return included and not any(matches(pattern, key) for pattern in section.exclude)


def _unmatched(section: AdapterSection, joining: Sequence[AdapterTarget], trained: Sequence[AdapterTarget]) -> list[str]:
    """A sentence for each pattern that fits none of the joining layers."""
    problems = []
    for field in ("include", "exclude"):
        for pattern in getattr(section, field):
            if any(matches(pattern, target.key) for target in joining):
                continue
            if any(matches(pattern, target.key) for target in trained):
                problems.append(
                    f"method.{field}: {pattern!r} fits only layers that join with method.conv_rank; set it, or drop the pattern"
                )
            else:
                near = ", ".join(near_misses(pattern, [target.key for target in joining]))
                problems.append(f"method.{field}: {pattern!r} fits none of the {len(joining)} layers; near misses: {near}")
    return problems


def near_misses(pattern: str, keys: Sequence[str], count: int = 3) -> list[str]:
    """What the keys have that looks like the pattern: pieces of as many words, else whole keys."""
    text = re.sub(r"[*?\[\]]+", "", pattern).strip("_")
    length = text.count("_") + 1
    words = (key.split("_") for key in keys)
    pieces = dict.fromkeys("_".join(key[start : start + length]) for key in words for start in range(len(key) - length + 1))
    return difflib.get_close_matches(text, list(pieces), count, cutoff=0.5) or list(keys[:count])
