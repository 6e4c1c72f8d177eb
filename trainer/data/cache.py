"""Tensors on disk under the digest of everything that made them, so that nothing ever has to be invalidated by hand."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ImageColor

from ..errors import OutputError
from ..files import write_bytes
from .buckets import Placement

if TYPE_CHECKING:
    import torch

PIXELS_VERSION = 1  # raise it when images.py gives other pixels for the same file; old entries are then no longer found


class TensorCache:
    """Dicts of tensors in `folder`/ab/<key>.safetensors; keys are hex digests. Several processes may share it."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Where the entry of this key is, or would be."""
        assert re.fullmatch(r"[0-9a-f]{8,128}", key), f"cache key {key!r} is not a hex digest"
        return self.folder / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether there is an entry, without reading it."""
        return self.path(key).is_file()

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The tensors on the CPU, or None. A damaged file counts as absent and is removed."""
        import safetensors.torch
        from safetensors import SafetensorError

        path = self.path(key)
        try:
            # Bytes rather than load_file: a memory-mapped file cannot be replaced on Windows.
            return safetensors.torch.load(path.read_bytes())
        except OSError:  # absent, or another process is replacing it just now (Windows)
            return None
        except (SafetensorError, ValueError, KeyError):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None

    def put(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        """Write one entry under a temporary name and rename it; OutputError where the folder cannot be written."""
        import safetensors.torch

        # clone: safetensors refuses tensors that share memory
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        try:
            write_bytes(self.path(key), safetensors.torch.save(plain), durable=False)
        except OutputError as error:
            raise OutputError(f"dataset.cache.dir: {error}") from None


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes as hex, remembered while size and modification time stay the same."""
    state = Path(path).stat()
    return _file_digest(str(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=100_000)
def _file_digest(path: str, _size: int, _mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def latent_key(
    image_digest: str,
    placement: Placement,
    vae_identity: str,
    dtype: torch.dtype | str,
    flip: bool = False,
    *,
    background: str,
) -> str:
    """The key of an encoded picture. `background` counts because it shows through transparent pixels."""
    where = [*placement.bucket, *placement.resized, *placement.crop]
    colour = ImageColor.getrgb(background)[:3]
    return _key("latent", PIXELS_VERSION, image_digest, where, vae_identity, dtype, bool(flip), colour)


def mask_key(image_digest: str, mask_digest: str | None, alpha: bool, placement: Placement, flip: bool, latent_pixels: int) -> str:
    """The key of a mask at latent resolution. The picture counts only where its alpha channel is used."""
    where = [*placement.bucket, *placement.resized, *placement.crop]
    return _key("mask", PIXELS_VERSION, image_digest if alpha else None, mask_digest, alpha, where, bool(flip), latent_pixels)


def text_key(caption: str, encoder_identity: str, dtype: torch.dtype | str, *details: float | str | None) -> str:
    """The key of an encoded caption; `details` are further settings that change the result, such as clip_skip."""
    return _key("text", caption, encoder_identity, dtype, *details)


def _key(*parts: Any) -> str:
    """sha256 of the parts as JSON; torch dtypes by name, so that torch.float16 and "float16" are the same."""
    text = json.dumps(parts, ensure_ascii=True, default=lambda value: str(value).removeprefix("torch."))
    return hashlib.sha256(text.encode()).hexdigest()
