"""Scans the dataset's folders: every picture ends up as a record or, with the reason, among the skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..config import CaptionSection, DatasetSection, Size
from ..errors import ConfigError, DatasetError
from ..events import StopCheck, never
from .buckets import check_buckets, enlarged, nearest_bucket, obstacle, place, share_kept
from .captions import read_caption, without_effect, without_frame
from .folders import IMAGE_SUFFIXES, CaptionFiles, Group, find_groups, first_few, unread_pictures
from .images import DamagedPicture, look, strict_decoding
from .known import KnownFiles
from .loader import prefetch
from .masks import Mask, MaskFiles, about_masks, read_mask

__all__ = ["IMAGE_SUFFIXES", "Record", "Scan", "Skipped", "scan"]


@dataclass(frozen=True)
class Record:
    """One picture to train on. `caption_source` is the caption file's name, "class words" or "none".

    With dataset.captions.wildcards, `caption` keeps the lines of the file.
    """

    path: Path
    caption: str
    caption_source: str
    width: int  # upright, after EXIF
    height: int
    repeats: int
    folder: Path
    digest: str  # sha256 of the file
    mask: Mask = Mask()
    regularization: bool = False

    def caption_settings(self, config: DatasetSection) -> CaptionSection:
        """How its caption is varied."""
        return without_frame(config.captions) if self.regularization else config.captions


@dataclass(frozen=True)
class Skipped:
    """One picture that is not trained on."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Scan:
    """What a dataset consists of. Records keep the order of the configured folders and are sorted by path within each.

    `empty_captions` are caption files without text. `stopped` means that `stop` ended the scan before all was read.
    """

    records: tuple[Record, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    empty_captions: tuple[Path, ...] = ()
    stopped: bool = False


@dataclass(frozen=True)
class _Reading:
    """What one picture and its caption files were found to be."""

    group: Group
    path: Path
    size: Size
    digest: str
    damage: str | None
    mask: Mask
    caption: str
    caption_file: Path | None
    warnings: tuple[str, ...]
    empty: tuple[Path, ...]

    def missing(self, config: DatasetSection) -> str:
        """What is done without a caption: pictures of a class take its words whatever `captions.missing` says."""
        general = self.group.regularization and self.group.class_words
        return "class_words" if general else config.captions.missing


def scan(config: DatasetSection, stop: StopCheck = never, memory: Path | None = None) -> Scan:
    """Read every picture and caption. DatasetError for folders without pictures and by the `refuse` settings.

    What is found out about pictures is remembered in the folder `memory`, so that unchanged ones are not decoded again.
    """
    if problems := check_buckets(config):
        raise ConfigError(problems)
    groups, warnings = _find_all(config)
    warnings += unread_pictures(groups)
    files = {group.folder: CaptionFiles(group.listing, config.captions.extensions) for group in groups}
    masks = {id(group): MaskFiles(group) for group in groups}
    threads = min(8, os.cpu_count() or 4)
    jobs = [(group, path) for group in groups for path in group.listing.pictures]
    readings: list[_Reading] = []
    stopped = False
    known = KnownFiles(memory)

    def read(job: tuple[Group, Path]) -> _Reading:
        return _read(*job, files[job[0].folder], masks[id(job[0])].of(job[1]), config, known)

    reader = prefetch(jobs, read, 4 * threads, threads)
    with strict_decoding(), closing(reader) as results:
        for reading in results:
            readings.append(reading)
            if stopped := stop():
                break
    known.save()
    records, skipped = _sort(readings, config)
    if not stopped:
        _refuse(readings, config)
        if not records:
            reasons = [f"{item.path}: {item.reason}" for item in skipped]
            raise DatasetError("the dataset has no usable picture:\n  " + _lines(reasons))
        if all(record.regularization for record in records):
            reasons = [f"{item.path}: {item.reason}" for item in skipped]
            raise DatasetError("the dataset has regularization pictures only, none to learn from:\n  " + _lines(reasons))
    warnings += [text for reading in readings for text in reading.warnings]
    warnings += _orphans(files.values()) + _about_settings(config, records)
    warnings += about_masks(config, [(record.path, record.mask) for record in records if not record.regularization], masks.values())
    empty = tuple(path for reading in readings for path in reading.empty)
    return Scan(tuple(records), tuple(skipped), tuple(warnings), empty, stopped)


def _find_all(config: DatasetSection) -> tuple[list[Group], list[str]]:
    """The folders of all entries in order; every wrong entry is reported at once."""
    groups: list[Group] = []
    warnings: list[str] = []
    problems: list[str] = []
    for section in config.folders:
        try:
            found, notes = find_groups(section)
        except DatasetError as error:
            problems.append(str(error))
            continue
        groups += found
        warnings += notes
        if section.class_words and config.captions.missing != "class_words" and not section.regularization:
            warnings.append(
                f"{section.path}: class_words {section.class_words!r} are not used because dataset.captions.missing is "
                f"{config.captions.missing!r}"
            )
    if problems:
        raise DatasetError("\n".join(problems))
    seen: set[Path] = set()
    for group in groups:
        if (real := group.folder.resolve()) in seen:
            warnings.append(f"{group.folder} is in dataset.folders twice; its pictures count for both entries")
        seen.add(real)
    return groups, warnings


def _read(group: Group, path: Path, files: CaptionFiles, mask_file: Path | None, config: DatasetSection, known: KnownFiles) -> _Reading:
    """Everything about one picture that needs the disk; runs in a thread."""
    size, digest, damage, mask = (0, 0), "", None, Mask()
    warnings: list[str] = []
    try:
        *sides, alpha, digest = known.facts(path, "pictures", look)
        size = (sides[0], sides[1])
        mask, warnings = read_mask(path, size, mask_file, config.alpha_mask and alpha, known)
    except DamagedPicture as error:
        damage = error.reason
    empty: list[Path] = []
    for file in files.of(path):
        try:
            text, warning = read_caption(file, config.captions.wildcards)
        except OSError as error:
            warnings.append(f"caption {file} cannot be read: {error.strerror or error}; it counts as missing")
            continue
        if warning:
            warnings.append(warning)
        if text:
            return _Reading(group, path, size, digest, damage, mask, text, file, tuple(warnings), tuple(empty))
        empty.append(file)
    return _Reading(group, path, size, digest, damage, mask, "", None, tuple(warnings), tuple(empty))


def _sort(readings: Iterable[_Reading], config: DatasetSection) -> tuple[list[Record], list[Skipped]]:
    records, skipped = [], []
    for reading in readings:
        reason = reading.damage or obstacle(*reading.size, config)
        caption, source = reading.caption, reading.caption_file.name if reading.caption_file else "none"
        if not reason and reading.caption_file is None:
            words, missing = reading.group.class_words, reading.missing(config)
            if missing == "class_words" and words:
                caption, source = words, "class words"
            elif missing in ("class_words", "skip"):
                reason = _no_caption(reading, config)
        if reason:
            skipped.append(Skipped(reading.path, reason))
        else:
            group = reading.group
            more = (group.repeats, group.folder, reading.digest, reading.mask, group.regularization)
            records.append(Record(reading.path, caption, source, *reading.size, *more))
    return records, skipped


def _no_caption(reading: _Reading, config: DatasetSection) -> str:
    if reading.empty:
        what = f"its caption file {reading.empty[0].name} is empty"
    else:
        names = [reading.path.stem + ending for ending in config.captions.extensions]
        what = f"it has no caption file ({' or '.join(names)})"
    if config.captions.missing == "skip":
        return f"{what} and dataset.captions.missing is 'skip'"
    remedy = "set class_words, name the folder like 10_cat, or set captions.missing: empty"
    return f"{what} and its folder has no class words; {remedy}"


def _refuse(readings: Sequence[_Reading], config: DatasetSection) -> None:
    """DatasetError that lists every picture which a `refuse` setting does not let pass."""
    problems = []
    if config.unreadable == "refuse":
        damaged = [f"{reading.path}: {reading.damage}" for reading in readings if reading.damage]
        if damaged:
            problems.append(
                f"{len(damaged)} pictures cannot be read; repair or remove them, or set dataset.unreadable: skip\n  " + _lines(damaged)
            )
    if config.captions.missing == "refuse":
        missing = [
            f"{reading.path}: " + (f"{reading.empty[0].name} is empty" if reading.empty else "no caption file")
            for reading in readings
            if not reading.damage and reading.caption_file is None and reading.missing(config) == "refuse"
        ]
        if missing:
            problems.append(
                f"{len(missing)} pictures have no caption; write one, or set dataset.captions.missing to class_words, "
                "empty or skip\n  " + _lines(missing)
            )
    if problems:
        raise DatasetError("\n".join(problems))


def _orphans(files: Iterable[CaptionFiles]) -> list[str]:
    warnings = []
    for item in files:
        names = [path.name for path in item.orphans()]
        if names:
            warnings.append(f"{item.listing.folder}: captions without a picture of the same name: {first_few(names)}")
    return warnings


def _about_settings(config: DatasetSection, records: Sequence[Record]) -> list[str]:
    """Settings that had no effect, and pictures that lose or gain much by the bucket they are put in."""
    buckets = config.buckets
    warnings = without_effect(config.captions, [record.caption for record in records])
    if buckets.enabled and any(side % buckets.step for side in config.resolution):
        nearest = "x".join(str(side) for side in nearest_bucket(*config.resolution, config))
        warnings.append(
            f"dataset.resolution {config.resolution[0]}x{config.resolution[1]} is not a multiple of buckets.step "
            f"{buckets.step}; pictures of that shape are trained at {nearest}"
        )
    placed = [(record, place(record.width, record.height, config)) for record in records]
    if not buckets.enabled and not buckets.upscale:
        small = [record.path.name for record, placement in placed if enlarged(record.width, record.height, placement)]
        if small:
            warnings.append(f"dataset.buckets.upscale has no effect: buckets are off; enlarged: {first_few(small)}")
    cropped = [record.path.name for record, placement in placed if share_kept(placement) < 0.5]
    if cropped:
        warnings.append(f"{len(cropped)} pictures lose more than half to the crop by their shape: {first_few(cropped)}")
    return warnings


def _lines(texts: Sequence[str], limit: int = 20) -> str:
    rest = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return "\n  ".join([*texts[:limit], *rest])
