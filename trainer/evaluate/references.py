"""The pictures that a grid's cells are compared with: those that were trained on, and those that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..config import DatasetSection, TrainConfig
    from ..data.records import Record

_KEPT = 256  # opened pictures that stay in memory


@dataclass(frozen=True)
class Reference:
    """A picture of the dataset and what its caption says."""

    path: Path
    caption: str

    def picture(self, size: tuple[int, int]) -> Image:
        """Cut in the middle to the shape of `size` (width, height), and scaled to it."""
        state = self.path.stat()
        return _fitted(self.path, size, state.st_size, state.st_mtime_ns)


@dataclass(frozen=True)
class References:
    """The pictures of a job."""

    training: tuple[Reference, ...] = ()
    held_out: tuple[Reference, ...] = ()


def references_of(config: TrainConfig) -> References:
    """The pictures that a job trains on and holds out. DatasetError where they are no longer there."""
    from ..plan import make_plan

    plan = make_plan(config)
    return References(_references(plan.records, config.dataset), _references(plan.held_out, config.dataset))


def read_references(training: DatasetSection | None, held_out: DatasetSection | None) -> References:
    """The pictures of two datasets, either of which may be missing."""
    from ..data.records import scan

    return References(*(_references(scan(dataset).records, dataset) if dataset else () for dataset in (training, held_out)))


def _references(records: Sequence[Record], dataset: DatasetSection) -> tuple[Reference, ...]:
    from ..data.captions import plain

    learned = [record for record in records if not record.regularization]
    return tuple(Reference(record.path, plain(record.caption, record.caption_settings(dataset))) for record in learned)


@lru_cache(maxsize=_KEPT)
def _fitted(path: Path, size: tuple[int, int], _bytes: int, _mtime_ns: int) -> Image:
    from PIL import Image as Images
    from PIL import ImageOps

    with Images.open(path) as picture:
        return cut_to(ImageOps.exif_transpose(picture), size)


def cut_to(picture: Image, size: tuple[int, int]) -> Image:
    """Cut in the middle to the shape of `size` (width, height), and scaled to it; RGB."""
    from PIL import Image as Images
    from PIL import ImageOps

    return ImageOps.fit(picture.convert("RGB"), size, Images.Resampling.LANCZOS)
