"""A picture as one step sees it: scaled and cropped, and with augmentation cropped, turned, mirrored and coloured anew.

Everything but the colour is done to the picture's mask in the same way.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..config import AugmentSection
from ..seeds import derive
from .buckets import Placement
from .images import open_alpha, open_mask, open_rgb, resize

if TYPE_CHECKING:
    import torch

# At strength 1. Factors are drawn from 1 - range to 1 + range, the hue from - range to + range of a whole turn.
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.2, 0.2, 0.3, 0.04
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float64)  # Rec. 601
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC 1953


@dataclass(frozen=True)
class Colour:
    """Factors, and the hue in turns."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


@dataclass(frozen=True)
class View:
    """How a picture is shown: cut out by `placement`, turned by `angle` (degrees, counter-clockwise), mirrored, coloured."""

    placement: Placement
    flip: bool = False
    angle: float = 0.0
    colour: Colour | None = None

    @property
    def seen(self) -> Placement:
        """The placement in the picture as it is seen: of a mirrored picture, the crop is counted from the other side."""
        if not self.flip:
            return self.placement
        left, top = self.placement.crop
        return replace(self.placement, crop=(self.placement.resized[0] - self.placement.bucket[0] - left, top))


def is_fresh(config: AugmentSection) -> bool:
    """Whether a picture can look so different at each use that its latents cannot be encoded beforehand."""
    return bool(fresh_settings(config))


def fresh_settings(config: AugmentSection) -> list[str]:
    """The settings that need a fresh encoding at each step."""
    return [name for name in ("random_crop", "rotate", "color") if getattr(config, name)]


def draw_view(placement: Placement, config: AugmentSection, seed: int) -> View:
    """The view of one use; each kind of chance has numbers of its own."""
    if config.random_crop:
        crop = [
            derive(seed, "crop", axis) % (whole - part + 1)
            for axis, (whole, part) in enumerate(zip(placement.resized, placement.bucket, strict=True))
        ]
        placement = replace(placement, crop=(crop[0], crop[1]))
    flip = config.flip and derive(seed, "flip") % 2 == 1
    angle = _random(seed, "rotate").uniform(-config.rotate, config.rotate) if config.rotate else 0.0
    return View(placement, flip, angle, _draw_colour(config.color, _random(seed, "color")) if config.color else None)


def load_pixels(path: Path, view: View, background: str) -> torch.Tensor:
    """float32 (3, height, width) of the placement's bucket, in [-1, 1]."""
    import torch

    pixels = np.array(show(open_rgb(path, background), view), dtype=np.float32)
    if view.colour:
        pixels = coloured(pixels, view.colour)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().div_(127.5).sub_(1.0)


def load_mask(path: Path, mask: Path | None, alpha: bool, view: View, latent_pixels: int) -> torch.Tensor:
    """float32 (1, h, w) in 0 to 1: the mean of the mask over each latent, 1 where there is none.

    `mask` is a mask picture, `alpha` uses the alpha channel of the picture itself; of both, the product counts.
    """
    import torch

    width, height = view.placement.bucket
    layers = [open_mask(mask)] if mask else []
    layers += [found] if alpha and (found := open_alpha(path)) else []
    values = np.ones((height, width), dtype=np.float32)
    for layer in layers:
        values *= np.asarray(show(layer, view, mask=True), dtype=np.float32) / 255.0
    return torch.nn.functional.avg_pool2d(torch.from_numpy(values)[None], latent_pixels)


def show(image: Image.Image, view: View, *, mask: bool = False) -> Image.Image:
    """The picture or mask of the size of the bucket, everything but the colour done to it."""
    shown = _turned(image, view, mask) if view.angle else resize(image, view.placement, mask=mask)
    return shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else shown


def coloured(pixels: np.ndarray, colour: Colour) -> np.ndarray:
    """RGB values (height, width, 3) from 0 to 255 with brightness, contrast, saturation and hue changed, in this order."""
    values = pixels.astype(np.float64) * colour.brightness
    mean = (values @ _LUMA).mean()
    values = mean + (values - mean) * colour.contrast
    grey = (values @ _LUMA)[..., None]
    values = grey + (values - grey) * colour.saturation
    # A turn of the two colour axes of YIQ keeps the brightness.
    turn = 2 * math.pi * colour.hue
    rotation = np.array([[1, 0, 0], [0, math.cos(turn), -math.sin(turn)], [0, math.sin(turn), math.cos(turn)]])
    values = values @ (np.linalg.inv(_YIQ) @ rotation @ _YIQ).T
    return values.clip(0, 255).astype(np.float32)


def turned_zoom(width: int, height: int, angle: float) -> float:
    """How much larger the cut-out must be drawn so that its turned middle, `width` by `height`, has no empty corner."""
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    return max((width * cosine + height * sine) / width, (width * sine + height * cosine) / height)


def _turned(image: Image.Image, view: View, mask: bool) -> Image.Image:
    """The middle of the cut-out, turned, so that nothing from outside of it is needed."""
    width, height = view.placement.bucket
    zoom = turned_zoom(width, height, view.angle)
    outer = math.ceil(width * zoom) + 2, math.ceil(height * zoom) + 2  # 2: a spline reads its neighbours
    drawn = resize(image, view.placement, outer, mask=mask)
    cosine, sine = math.cos(math.radians(view.angle)), math.sin(math.radians(view.angle))
    # From a place in the result to the place in `drawn`, both counted from their middles; y points down.
    across, down = outer[0] / 2 - (cosine * width - sine * height) / 2, outer[1] / 2 - (sine * width + cosine * height) / 2
    method = Image.Resampling.BILINEAR if mask else Image.Resampling.BICUBIC
    return drawn.transform((width, height), Image.Transform.AFFINE, (cosine, -sine, across, sine, cosine, down), method)


def _draw_colour(strength: float, chance: random.Random) -> Colour:
    brightness, contrast, saturation, hue = (chance.uniform(-reach, reach) * strength for reach in (BRIGHTNESS, CONTRAST, SATURATION, HUE))
    return Colour(1 + brightness, 1 + contrast, 1 + saturation, hue)


def _random(seed: int, name: str) -> random.Random:
    return random.Random(derive(seed, name))
