"""Captions: reading them in whatever encoding they were written, and varying them at each use.

A caption becomes the text of one use in this order; each step changes nothing where its setting is off:

1. `dropout` and `dropout_every_epochs` make the whole text empty, prefix and suffix included.
2. `wildcards` choose one line and one of each {red|blue}, in prefix and suffix too.
3. `keep_tokens_separator`, else `keep_tokens`, says which tags are fixed; `shuffle` orders the others anew, then `tag_dropout`
   leaves some of them out; tags are joined by ", ".
4. `prefix` and `suffix` are put around, so they are never shuffled or left out. Regularization pictures do without them.
   Where one of them holds the mark of `keep_tokens_separator`, they are put around before step 3, as part of the caption.

Each step has random numbers of its own, so that switching one on does not change what the others do.
"""

from __future__ import annotations

import locale
import random
import re
from collections.abc import Callable, Sequence
from itertools import islice, product
from pathlib import Path

from ..config import CaptionSection
from ..files import unicode_of
from ..seeds import derive
from .wildcards import expand, has_lone_brace, has_wildcards, resolve

MOST_TEXTS = 256  # so many texts of one caption with wildcards are looked at for its tags and its length
_ATTACHED = (",", ".", ";", ":", "!", "?")  # a suffix that begins with one of these stands without a space


def read_caption(path: Path, keep_lines: bool = False) -> tuple[str, str | None]:
    """The text of a caption file, and a warning that names the encoding when it was not UTF-8.

    All lines count: they are stripped and joined by a space, or with `keep_lines` by a line break. A file of only white
    space gives "".
    """
    data = path.read_bytes()
    text, encoding = _decode(data)
    text = ("\n" if keep_lines else " ").join(line.strip() for line in text.splitlines() if line.strip())
    if encoding is None:
        return text, None
    return (
        text,
        f"caption {path} is not UTF-8; read as {encoding}: {_shorten(text)!r}; save it as UTF-8 if this is wrong",
    )


def varies(config: CaptionSection) -> bool:
    """Whether `vary` can give other texts than those of `texts_in_use`, so that text cannot be encoded beforehand."""
    return config.shuffle or config.tag_dropout > 0 or config.wildcards


def variations(config: CaptionSection) -> list[str]:
    """The settings by which a caption differs from use to use, in words."""
    return [
        *(["tags shuffled"] if config.shuffle else []),
        *([f"{config.tag_dropout:.0%} of tags left out"] if config.tag_dropout else []),
        *(["wildcards"] if config.wildcards else []),
        *([f"{config.dropout:.0%} without caption"] if config.dropout else []),
        *([f"no captions in every epoch that is a multiple of {n}"] if (n := config.dropout_every_epochs) else []),
    ]


def without_frame(config: CaptionSection) -> CaptionSection:
    """The same settings without prefix and suffix: a trigger word there would teach it to the regularization pictures too."""
    return config.model_copy(update={"prefix": "", "suffix": ""})


def vary(caption: str, config: CaptionSection, seed: int, epoch: int) -> str:
    """The text of one use in epoch `epoch` (from 1); random only through `seed`."""
    if config.dropout_every_epochs and epoch % config.dropout_every_epochs == 0:
        return ""
    if config.dropout and _random(seed, "caption dropout").random() < config.dropout:
        return ""
    return _text(caption, config, _random(seed, "wildcards").randrange, lambda tags: _rearrange(tags, config, seed))


def plain(caption: str, config: CaptionSection) -> str:
    """The text without chance, for validation: whole, in the order of the file, the first line, the first of each {red|blue}."""
    return _text(caption, config, lambda _count: 0, list)


def plain_texts(caption: str, config: CaptionSection) -> list[str]:
    """`plain` for every line and wildcard, up to `MOST_TEXTS`."""
    if not config.wildcards:
        return [plain(caption, config)]
    settled = config.model_copy(update={"wildcards": False})
    lines = [text for line in _lines(caption) for text in expand(line, MOST_TEXTS)]
    frames = expand(config.prefix, MOST_TEXTS), expand(config.suffix, MOST_TEXTS)
    texts = (plain(line, settled.model_copy(update={"prefix": before, "suffix": after})) for line, before, after in product(lines, *frames))
    return list(dict.fromkeys(islice(texts, MOST_TEXTS)))


def texts_in_use(captions: Sequence[tuple[str, CaptionSection]]) -> set[str]:
    """Every text that `vary` and `plain` give for these captions with their settings, where `varies` is false."""
    empty = {""} if any(config.dropout or config.dropout_every_epochs for _, config in captions) else set()
    return {plain(caption, config) for caption, config in captions} | empty


def tags_of(caption: str, config: CaptionSection) -> list[str]:
    """The tags of a caption as it is trained; of those with wildcards, each tag that can occur, once."""
    texts = plain_texts(caption, config)
    tags = [tag for text in texts for tag in _split(text, config)]
    return tags if len(texts) == 1 else list(dict.fromkeys(tags))


def without_effect(config: CaptionSection, captions: Sequence[str]) -> list[str]:
    """Warnings about settings that change none of these captions."""
    warnings = []
    mark = config.keep_tokens_separator
    marked = [mark != "" and any(mark in part for part in (config.prefix, text, config.suffix)) for text in captions]
    moves = config.shuffle or config.tag_dropout > 0
    if config.keep_tokens and not moves:
        warnings.append(
            f"dataset.captions.keep_tokens {config.keep_tokens} has no effect: captions.shuffle is off, and captions.tag_dropout too"
        )
    elif config.keep_tokens and captions and all(marked):
        warnings.append(f"dataset.captions.keep_tokens {config.keep_tokens} has no effect: {mark!r} in every caption counts instead")
    if mark and not any(marked):
        warnings.append(f"dataset.captions.keep_tokens_separator {mark!r} has no effect: no caption holds it")
    elif mark and not moves:
        warnings.append(
            f"dataset.captions.keep_tokens_separator {mark!r} is only taken out of the captions: captions.shuffle is off, "
            "and captions.tag_dropout too"
        )
    if config.wildcards and (lone := [text for text in (*captions, config.prefix, config.suffix) if has_lone_brace(text)]):
        warnings.append(
            f"dataset.captions.wildcards: {len(lone)} texts have a brace without a partner, which stays a letter, for example "
            f"{_shorten(lone[0])!r}; write {{{{ or }}}} for a brace that is meant"
        )
    if config.wildcards and not any("\n" in text or has_wildcards(text) for text in (*captions, config.prefix, config.suffix)):
        warnings.append("dataset.captions.wildcards has no effect: no caption holds {…} or a second line; text is not cached because of it")
    return warnings


def _text(caption: str, config: CaptionSection, pick: Callable[[int], int], rearrange: Callable[[list[str]], list[str]]) -> str:
    """Steps 2 to 4 of the order above."""
    prefix, suffix = config.prefix, config.suffix
    if config.wildcards:
        lines = _lines(caption)
        caption = resolve(lines[pick(len(lines))] if len(lines) > 1 else lines[0], pick)
        prefix, suffix = resolve(prefix, pick), resolve(suffix, pick)
    prefix, suffix, mark = prefix.strip(), suffix.strip(), config.keep_tokens_separator
    if mark and (mark in prefix or mark in suffix):
        return _tags(_frame(prefix, caption, suffix, config.separator), config, rearrange)
    return _frame(prefix, _tags(caption, config, rearrange), suffix, config.separator)


def _tags(caption: str, config: CaptionSection, rearrange: Callable[[list[str]], list[str]]) -> str:
    """The caption with its flexible tags rearranged; without settings that rearrange, it keeps its exact spelling."""
    mark = config.keep_tokens_separator
    moves = config.shuffle or config.tag_dropout > 0
    if not mark or mark not in caption:
        if not moves:
            return caption
        tags = _split(caption, config)
        return ", ".join(tags[: config.keep_tokens] + rearrange(tags[config.keep_tokens :]))
    head, middle, *tail = caption.split(mark)
    if not moves:
        parts = (part.strip(config.separator + " ") for part in (head, middle, *tail))
        return ", ".join(part for part in parts if part)
    last = [tag for part in tail for tag in _split(part, config)]
    return ", ".join(_split(head, config) + rearrange(_split(middle, config)) + last)


def _rearrange(tags: list[str], config: CaptionSection, seed: int) -> list[str]:
    if config.shuffle:
        _random(seed, "caption").shuffle(tags)
    if config.tag_dropout:
        chance = _random(seed, "tag dropout")
        tags = [tag for tag in tags if chance.random() >= config.tag_dropout]
    return tags


def _frame(prefix: str, text: str, suffix: str, separator: str) -> str:
    if not (prefix or suffix):
        return text
    if not text:
        prefix, suffix = prefix.rstrip(separator + " "), suffix if prefix else suffix.lstrip(separator + " ")
    joined = ""
    for part in (prefix, text, suffix):
        space = " " if joined and part and not part.startswith((*_ATTACHED, separator)) else ""
        joined += space + part
    return joined


def _split(text: str, config: CaptionSection) -> list[str]:
    return [tag for part in text.split(config.separator) if (tag := part.strip())]


def _lines(caption: str) -> list[str]:
    return caption.split("\n")


def _random(seed: int, name: str) -> random.Random:
    return random.Random(derive(seed, name))


def _decode(data: bytes) -> tuple[str, str | None]:
    """Text, and the encoding if it was not UTF-8 (with or without a byte order mark)."""
    encoding = unicode_of(data)
    if encoding == "utf-16":
        return data.decode(encoding, errors="replace"), encoding
    try:
        return data.decode(encoding), None
    except UnicodeDecodeError:
        pass
    candidates = [locale.getpreferredencoding(False), *(["gb18030"] if _looks_double_byte(data) else []), "cp1252"]
    for encoding in candidates:
        try:
            return data.decode(encoding), encoding
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("latin-1"), "latin-1"


def _looks_double_byte(data: bytes) -> bool:
    """Chinese text has its high bytes in pairs, Western text mostly alone; gb18030 would also accept "Müller"."""
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    return sum(run for run in runs if run > 1) > runs.count(1)


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
