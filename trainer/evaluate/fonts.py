"""A font that has the letters of a text: DejaVu Sans, or a font of the system for Chinese, Japanese and Korean."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# File names of fonts with Chinese letters, best first, as Linux, macOS and Windows install them.
CJK_FONTS = (
    "NotoSansCJK*Regular*",
    "NotoSansCJK*",
    "NotoSansSC*",
    "SourceHanSans*",
    "PingFang*",
    "Hiragino Sans GB*",
    "STHeiti*",
    "msyh*",
    "wqy-*",
    "DroidSansFallback*",
    "simhei*",
    "simsun*",
    "NotoSerifCJK*",
    "Arial Unicode*",
    "ArialUni*",
    "uming*",
    "ukai*",
)


def find_font(text: str) -> tuple[str, int]:
    """File and face number of a font that can draw `text`."""
    return _cjk_font() or _latin_font() if needs_cjk(text) else _latin_font()


def load_font(text: str, size: int) -> Any:
    """The font for `text` at `size` pixels."""
    from PIL import ImageFont

    file, face = find_font(text)
    return ImageFont.truetype(file, size, index=face) if file else ImageFont.load_default(size)


def plot_font(text: str, size: float) -> Any:
    """The same for matplotlib; sizes are points."""
    from matplotlib.font_manager import FontProperties

    file, _face = find_font(text)
    return FontProperties(fname=file or None, size=size)


def needs_cjk(text: str) -> bool:
    """Whether a letter lies in the East Asian blocks, which begin at U+2E80."""
    return any(ord(letter) >= 0x2E80 for letter in text)


@cache
def _latin_font() -> tuple[str, int]:
    """DejaVu Sans as matplotlib ships it; an empty name stands for Pillow's own font."""
    try:
        import matplotlib
    except ImportError:
        return "", 0
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return (str(file), 0) if file.is_file() else ("", 0)


@cache
def _cjk_font() -> tuple[str, int] | None:
    files = [file for folder in _font_folders() for file in _font_files(folder)]
    for pattern in CJK_FONTS:
        for file in sorted(files):
            if file.match(pattern) or Path(file.name.lower()).match(pattern.lower()):
                return str(file), _chinese_face(file)
    log.warning("no font with Chinese letters was found; labels will show boxes (install Noto Sans CJK)")
    return None


def _font_folders() -> Iterator[Path]:
    home = Path.home()
    yield from (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".local/share/fonts", home / ".fonts")
    yield from (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts")
    yield Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"
    yield home / "AppData/Local/Microsoft/Windows/Fonts"


def _font_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):  # unlike rglob, passes over folders that cannot be read
        yield from (Path(parent, name) for name in names if name.lower().endswith((".ttf", ".ttc", ".otf")))


def _chinese_face(file: Path) -> int:
    """A collection holds the same letters in several national forms; take the simplified Chinese one."""
    from PIL import ImageFont

    for face in range(16 if file.suffix.lower() == ".ttc" else 0):
        try:
            family = ImageFont.truetype(str(file), 12, index=face).getname()[0] or ""
        except OSError:
            break
        if family.endswith(" SC"):
            return face
    return 0
