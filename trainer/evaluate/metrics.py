"""How far two pictures of one size are apart. Pictures are PIL images, or arrays (H, W, 3) or (H, W) of 0 to 255."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def mean_abs_difference(a: Image | np.ndarray, b: Image | np.ndarray) -> float:
    """Mean absolute difference per channel in grey levels: 0 (equal) to 255."""
    first, second = _pair(a, b)
    return float(np.abs(first - second).mean())


def difference(a: Image | np.ndarray, b: Image | np.ndarray) -> np.ndarray:
    """(H, W): of each pixel the difference of the channel that differs most, in grey levels 0 to 255."""
    first, second = _pair(a, b)
    return np.abs(first - second).max(axis=2)


def changed_share(a: Image | np.ndarray, b: Image | np.ndarray, threshold: float = 20) -> float:
    """Share of the pixels, 0 to 1, that differ by more than `threshold` grey levels in some channel."""
    return float((difference(a, b) > threshold).mean())


def psnr(a: Image | np.ndarray, b: Image | np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / mean squared error); infinite for equal pictures."""
    first, second = _pair(a, b)
    if np.array_equal(first, second):
        return float("inf")
    from skimage.metrics import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(first, second, data_range=255))


def ssim(a: Image | np.ndarray, b: Image | np.ndarray) -> float:
    """Structural similarity, -1 to 1 (equal), over 7x7 windows (Wang et al. 2004, doi 10.1109/TIP.2003.819861)."""
    first, second = _pair(a, b)
    if min(first.shape[:2]) < 7:
        raise ValueError(f"ssim needs pictures of at least 7x7 pixels, got {first.shape[1]}x{first.shape[0]}")
    from skimage.metrics import structural_similarity

    similarity: Any = structural_similarity(first, second, data_range=255, channel_axis=2)
    return float(similarity)


def _pair(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    first, second = _array(a), _array(b)
    if first.shape != second.shape:
        sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (first, second))
        raise ValueError(f"pictures to compare must have one size, got {sizes}")
    return first, second


def _array(picture: Any) -> np.ndarray:
    """(H, W, 3) in float64."""
    if hasattr(picture, "convert"):
        picture = picture.convert("RGB")
    array = np.asarray(picture, dtype=np.float64)
    return np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else array
