"""Which mask belongs to which picture: folders of mask pictures with the same names, and alpha channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..config import DatasetSection, Size
from ..errors import DatasetError
from .folders import Group, composed, first_few, list_folder
from .images import DamagedPicture, look_at_mask
from .known import KnownFiles

_SHAPE_TOLERANCE = 0.02  # of the aspect ratio; rounding when a mask was made smaller stays below it


@dataclass(frozen=True)
class Mask:
    """Where a picture's mask comes from: a file, its own alpha channel, both (their product counts) or neither."""

    path: Path | None = None
    alpha: bool = False
    digest: str | None = field(default=None, compare=False)  # sha256 of the file

    def __bool__(self) -> bool:
        return self.path is not None or self.alpha


class MaskFiles:
    """Finds the masks of one folder's pictures: same name, any of the endings of pictures. DatasetError where nothing fits."""

    def __init__(self, group: Group):
        self.group = group
        self.found: dict[str, Path] = {}
        if group.masks is None:
            return
        if not group.masks.is_dir():
            raise DatasetError(f"the folder of masks {group.masks} does not exist")
        if group.masks.resolve() == group.folder.resolve():
            raise DatasetError(f"the folder of masks {group.masks} is that of the pictures themselves; put the masks into one of their own")
        pictures = list_folder(group.masks).pictures
        self.found = {composed(path.stem): path for path in reversed(pictures)}  # of two with one name, the first
        if not any(self.of(picture) for picture in group.listing.pictures):
            names = first_few([path.name for path in pictures]) or "no pictures"
            raise DatasetError(f"no mask in {group.masks} has the name of a picture in {group.folder}; it holds {names}")

    def of(self, picture: Path) -> Path | None:
        return self.found.get(composed(picture.stem))

    def orphans(self) -> list[str]:
        """A warning that names the masks that belong to no picture."""
        stems = {composed(picture.stem) for picture in self.group.listing.pictures}
        names = [path.name for stem, path in sorted(self.found.items()) if stem not in stems]
        return [f"{self.group.masks}: masks without a picture of the same name: {first_few(names)}"] if names else []


def read_mask(picture: Path, size: Size, file: Path | None, alpha: bool, known: KnownFiles) -> tuple[Mask, list[str]]:
    """The mask of a picture of upright `size`, with its `alpha` channel or without, and warnings.

    DamagedPicture where the mask cannot be read.
    """
    warnings, digest = [], None
    if file is not None:
        try:
            width, height, anything, digest = known.facts(file, "masks", look_at_mask)
        except DamagedPicture as error:
            raise DamagedPicture(picture, f"its mask {file} cannot be used: {error.reason}") from None
        if not anything:
            warnings.append(f"mask {file} is black everywhere, so nothing of its picture is learned")
        if abs(width * size[1] / (height * size[0]) - 1) > _SHAPE_TOLERANCE:
            warnings.append(f"mask {file} has another shape ({width}x{height}) than its picture ({size[0]}x{size[1]}) and is stretched")
    return Mask(file, alpha, digest), warnings


def about_masks(config: DatasetSection, masks: Sequence[tuple[Path, Mask]], files: Iterable[MaskFiles]) -> list[str]:
    """Warnings about pictures without a mask, where others have one, and masks without a picture."""
    warnings = [text for item in files for text in item.orphans()]
    if config.alpha_mask and not any(mask.alpha for _, mask in masks):
        warnings.append("dataset.alpha_mask has no effect: no picture has an alpha channel")
    bare = [path.name for path, mask in masks if not mask]
    if bare and len(bare) < len(masks):
        warnings.append(f"{len(bare)} pictures have no mask, so all of them is learned: {first_few(bare)}")
    return warnings
