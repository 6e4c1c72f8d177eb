"""Picture files to upright RGB or masks, scaled and cropped to their bucket."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageFile, UnidentifiedImageError

from ..config import Size
from ..errors import DatasetError
from .buckets import Placement
from .cache import file_digest

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # a closed list: Pillow would hand a disguised EPS to Ghostscript
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DamagedPicture(DatasetError):
    """One file that cannot be decoded; `reason` is the message without the path."""

    def __init__(self, path: Path, reason: str):
        self.path, self.reason = path, reason
        super().__init__(f"picture {path}: {reason}")


def read_size(path: Path) -> Size:
    """Upright (width, height) from the header alone; DamagedPicture where there is none."""
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image, path) >= 5 else (width, height)


def verify(path: Path) -> None:
    """Decode the whole file; DamagedPicture if it is truncated or corrupt. Call it within `strict_decoding`."""
    with _opened(path) as image:
        # A JPEG decoder reads every byte but computes fewer pixels at a reduced scale; other formats ignore the hint.
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def look(path: Path) -> tuple[int, int, bool, str]:
    """Upright width and height, whether there is an alpha channel, and sha256 of a whole picture; DamagedPicture where it is not."""
    width, height = read_size(path)
    verify(path)
    with _opened(path) as image:
        return width, height, _has_alpha(image), file_digest(path)


def look_at_mask(path: Path) -> tuple[int, int, bool, str]:
    """Upright width and height, whether anything is not black, and sha256 of a mask; DamagedPicture where it cannot be read."""
    mask = open_mask(path)
    return mask.width, mask.height, mask.getextrema()[1] != 0, file_digest(path)


def open_rgb(path: Path, background: str) -> Image.Image:
    """The picture upright, in RGB, transparent parts over `background` (a colour name or #rrggbb)."""
    with _opened(path) as image:
        orientation = _orientation(image, path)
        image.load()
        rgb = _to_rgb(image, background)
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def open_mask(path: Path) -> Image.Image:
    """A mask picture upright, from 0 (black or transparent) to 255 (white), mode L."""
    return open_rgb(path, "black").convert("L")


def open_alpha(path: Path) -> Image.Image | None:
    """The alpha channel upright, mode L; None for a picture that has none."""
    with _opened(path) as image:
        if not _has_alpha(image):
            return None
        orientation = _orientation(image, path)
        image.load()
        alpha = image.convert("RGBA").getchannel("A")
    return alpha.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else alpha


def resize(image: Image.Image, placement: Placement, size: Size | None = None, *, mask: bool = False) -> Image.Image:
    """Scale and crop in one pass, exactly to the bucket or to another `size`.

    Antialiased Lanczos to shrink, bicubic to enlarge; masks by plain averages and straight lines, which do not overshoot.
    """
    shrinks = placement.resized[0] < image.width or placement.resized[1] < image.height
    across, down = image.width / placement.resized[0], image.height / placement.resized[1]
    left, top = placement.crop
    width, height = placement.bucket
    right, bottom = min(image.width, (left + width) * across), min(image.height, (top + height) * down)
    # `box` is the crop in the picture's own pixels, so that the overhang of a very long picture is never computed.
    smaller, larger = (Image.Resampling.BOX, Image.Resampling.BILINEAR) if mask else (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC)
    return image.resize(size or placement.bucket, smaller if shrinks else larger, box=(left * across, top * down, right, bottom))


class _Strict:
    """Counts who needs Pillow's process-wide LOAD_TRUNCATED_IMAGES to be off, and restores it after the last."""

    lock = threading.Lock()

    def __init__(self) -> None:
        self.users, self.before = 0, False

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self.before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self.before


_STRICT = _Strict()


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Within it Pillow reports truncated files, even where other nodes of the host told it to fill them with grey."""
    _STRICT.enter()
    try:
        yield
    finally:
        _STRICT.leave()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The lazily opened file; everything that goes wrong inside becomes a DamagedPicture with a readable reason."""
    try:
        if path.stat().st_size == 0:
            raise DamagedPicture(path, "the file is empty (0 bytes)")
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except (MemoryError, DatasetError):
        raise
    except UnidentifiedImageError:
        raise DamagedPicture(path, "its content is not PNG, JPEG, WebP or BMP, whatever its ending says") from None
    except Image.DecompressionBombError:
        raise DamagedPicture(path, "it has more pixels than Pillow's safety limit; save it smaller") from None
    except OSError as error:
        if error.strerror and error.errno:
            raise DamagedPicture(path, f"it cannot be opened: {error.strerror}") from None
        raise DamagedPicture(path, f"it is damaged: {error}") from None
    except Exception as error:  # Pillow's plug-ins let any exception out when the bytes are wrong
        raise DamagedPicture(path, f"it is damaged: {type(error).__name__}: {error}") from None


def _orientation(image: Image.Image, path: Path) -> int:
    """The EXIF orientation 1 to 8, without decoding pixels; unreadable EXIF counts as 1 (upright)."""
    try:
        if image.format == "PNG" and "exif" not in image.info and (late := _late_exif(path)):
            image.info["exif"] = late
        # The base class's method, because that of PNG decodes the whole picture to look for EXIF behind the pixels.
        value = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1)
    except Exception:  # many programs write EXIF, Pillow raises anything when it is wrong, and the pixels are still good
        return 1
    return value if value in UPRIGHT else 1


def _late_exif(path: Path) -> bytes | None:
    """The eXIf chunk of a PNG that has it after its pixels, found by hopping over the others (PNG, 5.3)."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return b"Exif\x00\x00" + file.read(length)
            file.seek(length + 4, 1)
    return None


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


def _to_rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel; convert() would clip instead of scale
        values = np.asarray(image).astype(np.float32) / 257.0
        return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8)).convert("RGB")
    if _has_alpha(image):
        behind = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
