"""Captions: reading them in whatever encoding they were written, and varying them at each use."""

from __future__ import annotations

import codecs
import locale
import random
import re
from pathlib import Path

from ..config import CaptionSection


def read_caption(path: Path) -> tuple[str, str | None]:
    """The text of a caption file on one line, and a warning that names the encoding when it was not UTF-8.

    All lines count: they are stripped and joined by a space. A file of only white space gives "".
    """
    data = path.read_bytes()
    text, encoding = _decode(data)
    text = " ".join(line.strip() for line in text.splitlines() if line.strip())
    if encoding is None:
        return text, None
    return (
        text,
        f"caption {path} is not UTF-8; read as {encoding}: {_shorten(text)!r}; save it as UTF-8 if this is wrong",
    )


def varies(config: CaptionSection) -> bool:
    """Whether `vary` can give another text than it was given, so that text must not be cached."""
    return config.shuffle


def vary(caption: str, config: CaptionSection, rng: random.Random) -> str:
    """The caption as one step sees it. Without variation it passes unchanged, else tags are re-joined with ", "."""
    if not varies(config):
        return caption
    tags = [tag.strip() for tag in caption.split(config.separator)]
    tags = [tag for tag in tags if tag]
    fixed, flexible = tags[: config.keep_tokens], tags[config.keep_tokens :]
    rng.shuffle(flexible)
    return ", ".join(fixed + flexible)


def _decode(data: bytes) -> tuple[str, str | None]:
    """Text, and the encoding if it was not UTF-8 (with or without a byte order mark)."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace"), "utf-16"
    try:
        return data.decode("utf-8-sig"), None
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
