"""What a dataset will do in training, as values for programs and as lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import DatasetSection, Size
from .buckets import enlarged, place
from .captions import plain_texts, variations
from .records import Record, Scan, Skipped
from .sampler import epoch_repeats
from .views import fresh_settings

LISTED = 20  # so many files of a kind are printed; as_dict always has all


@dataclass(frozen=True)
class BucketCount:
    """One bucket in use: different pictures, samples per epoch (with repeats), batches per epoch."""

    size: Size
    images: int
    samples: int
    batches: int


@dataclass(frozen=True)
class CaptionLength:
    """How many tokens a caption has, without start and end marks."""

    path: Path
    tokens: int


@dataclass(frozen=True)
class DatasetReport:
    """Built by `describe_dataset`. `caption_sources` counts pictures per caption ending, "class words" and "none"."""

    images: int
    samples_per_epoch: int
    batches_per_epoch: int
    batch_size: int
    skipped: tuple[Skipped, ...]
    caption_sources: dict[str, int]
    caption_variations: tuple[str, ...]
    empty_captions: tuple[Path, ...]
    buckets: tuple[BucketCount, ...]
    enlarged: tuple[Path, ...]
    caption_lengths: tuple[CaptionLength, ...]
    token_limit: int
    duplicates: tuple[tuple[Path, ...], ...]
    warnings: tuple[str, ...]
    regularization: tuple[int, int]  # pictures, and samples of them per epoch
    masks: tuple[int, int]  # pictures to learn from with a mask, and without one
    augmentation: tuple[str, ...]
    encodings: str  # of pictures: "once", "twice" (mirrored too) or "each step"

    @property
    def over_limit(self) -> tuple[CaptionLength, ...]:
        """Captions with more tokens than the limit, the longest first."""
        long = [item for item in self.caption_lengths if item.tokens > self.token_limit]
        return tuple(sorted(long, key=lambda item: (-item.tokens, str(item.path))))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; sizes as [width, height], paths as text."""
        return {
            "images": self.images,
            "samples_per_epoch": self.samples_per_epoch,
            "batches_per_epoch": self.batches_per_epoch,
            "batch_size": self.batch_size,
            "skipped": [{"path": str(item.path), "reason": item.reason} for item in self.skipped],
            "caption_sources": dict(self.caption_sources),
            "caption_variations": list(self.caption_variations),
            "empty_captions": [str(path) for path in self.empty_captions],
            "buckets": [
                {"size": list(item.size), "images": item.images, "samples": item.samples, "batches": item.batches} for item in self.buckets
            ],
            "enlarged": [str(path) for path in self.enlarged],
            "token_limit": self.token_limit,
            "caption_tokens": [{"path": str(item.path), "tokens": item.tokens} for item in self.caption_lengths],
            "captions_over_limit": [{"path": str(item.path), "tokens": item.tokens} for item in self.over_limit],
            "duplicates": [[str(path) for path in group] for group in self.duplicates],
            "warnings": list(self.warnings),
            "regularization": dict(zip(("images", "samples_per_epoch"), self.regularization, strict=True)),
            "masks": dict(zip(("found", "missing"), self.masks, strict=True)),
            "augmentation": list(self.augmentation),
            "encodings": self.encodings,
        }

    def lines(self) -> list[str]:
        """The report as text, one finding per line; long lists are cut and say how many follow."""
        lines = [
            f"{_count(self.images, 'picture')}, {_count(self.samples_per_epoch, 'sample')} per epoch with repeats, "
            f"{_count(self.batches_per_epoch, 'batch', 'batches')} of up to {self.batch_size}",
            "captions: " + (", ".join(f"{count} from {name}" for name, count in self.caption_sources.items()) or "none"),
        ]
        lines += self._about_pictures()
        lines += ["captions vary: " + ", ".join(self.caption_variations)] if self.caption_variations else []
        lines += _section("empty caption files", [str(path) for path in self.empty_captions])
        if self.caption_lengths:
            most = max(item.tokens for item in self.caption_lengths)
            lines.append(f"longest caption: {most} tokens, {self.token_limit} fit")
        over = [f"{item.path}: {item.tokens} tokens" for item in self.over_limit]
        lines += _section(f"captions over {self.token_limit} tokens", over)
        lines.append("buckets (width x height: pictures, samples per epoch, batches):")
        lines += [f"  {item.size[0]}x{item.size[1]}: {item.images}, {item.samples}, {item.batches}" for item in self.buckets]
        lines += _section("pictures smaller than their bucket, enlarged", [str(path) for path in self.enlarged])
        lines += _section("skipped", [f"{item.path}: {item.reason}" for item in self.skipped])
        lines += _section("identical files", [" = ".join(str(path) for path in group) for group in self.duplicates])
        lines += _section("warnings", self.warnings)
        return lines

    def _about_pictures(self) -> list[str]:
        lines = []
        if self.regularization[0]:
            images, samples = self.regularization
            learned = self.samples_per_epoch - samples
            lines.append(f"regularization: {_count(images, 'picture')}; {samples} samples per epoch beside {learned} to learn from")
        if self.masks[0]:
            lines.append(f"masks: {_count(self.masks[0], 'picture')} with a mask, {self.masks[1]} without")
        if self.augmentation:
            lines.append(f"augmentation: {', '.join(self.augmentation)}; pictures are encoded {self.encodings}")
        return lines


def describe_dataset(
    scan: Scan,
    config: DatasetSection,
    count_tokens: Callable[[str], int] | None = None,
    token_limit: int = 75,
    held_out: Sequence[Record] = (),
) -> DatasetReport:
    """Sort the scanned records into buckets and count.

    `count_tokens` gives a caption's tokens without start and end marks; 75 of them fit into one CLIP context of 77. Records that
    are `held_out` are looked at, but not counted as trained.
    """
    apart = {record.path for record in held_out}
    trained = [record for record in scan.records if record.path not in apart]
    placements = [place(record.width, record.height, config) for record in trained]
    sizes, general = [placement.bucket for placement in placements], [record.regularization for record in trained]
    repeats = epoch_repeats(sizes, [record.repeats for record in trained], general, seed=0, epoch=0)
    buckets = _bucket_counts(sizes, repeats, config.batch_size)
    masked = [bool(record.mask) for record in trained if not record.regularization]
    lengths = [CaptionLength(record.path, _longest(record, config, count_tokens)) for record in scan.records] if count_tokens else []
    return DatasetReport(
        images=len(trained),
        samples_per_epoch=sum(repeats),
        batches_per_epoch=sum(item.batches for item in buckets),
        batch_size=config.batch_size,
        skipped=scan.skipped,
        caption_sources=dict(Counter(_source(record) for record in trained).most_common()),
        caption_variations=tuple(variations(config.captions)),
        empty_captions=scan.empty_captions,
        buckets=buckets,
        enlarged=tuple(
            record.path for record, placement in zip(trained, placements, strict=True) if enlarged(record.width, record.height, placement)
        ),
        caption_lengths=tuple(lengths),
        token_limit=token_limit,
        duplicates=find_duplicates(scan.records),
        warnings=scan.warnings,
        regularization=(sum(general), sum(count for count, extra in zip(repeats, general, strict=True) if extra)),
        masks=(sum(masked), len(masked) - sum(masked)),
        augmentation=tuple(_augmentation(config)),
        encodings=_encodings(config),
    )


def _augmentation(config: DatasetSection) -> list[str]:
    augment = config.augment
    return [
        *(["half of the uses mirrored"] if augment.flip else []),
        *(["random crop"] if augment.random_crop else []),
        *([f"turned by up to {augment.rotate:g} degrees"] if augment.rotate else []),
        *([f"colours changed with strength {augment.color:g}"] if augment.color else []),
    ]


def _encodings(config: DatasetSection) -> str:
    if not config.cache.latents or fresh_settings(config.augment):
        return "each step"
    return "twice" if config.augment.flip else "once"


def find_duplicates(records: Iterable[Record]) -> tuple[tuple[Path, ...], ...]:
    """Groups of different files with the same bytes."""
    by_digest: dict[str, dict[Path, None]] = {}
    for record in records:
        by_digest.setdefault(record.digest, {})[record.path] = None
    return tuple(tuple(group) for group in by_digest.values() if len(group) > 1)


def _bucket_counts(sizes: Sequence[Size], repeats: Sequence[int], batch_size: int) -> tuple[BucketCount, ...]:
    images: Counter[Size] = Counter(sizes)
    samples: Counter[Size] = Counter()
    for size, count in zip(sizes, repeats, strict=True):
        samples[size] += count
    return tuple(BucketCount(size, images[size], samples[size], -(-samples[size] // batch_size)) for size in sorted(images))


def _longest(record: Record, config: DatasetSection, count_tokens: Callable[[str], int]) -> int:
    """Tokens of the caption, or of the longest text that its wildcards can give."""
    return max(count_tokens(text) for text in plain_texts(record.caption, record.caption_settings(config)))


def _source(record: Record) -> str:
    """The ending of the caption file, or where else the caption came from."""
    if record.caption_source in ("class words", "none"):
        return record.caption_source
    return Path(record.caption_source).suffix.lower()


def _section(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    rest = [f"  and {len(items) - LISTED} more"] if len(items) > LISTED else []
    return [f"{title} ({len(items)}):", *(f"  {item}" for item in items[:LISTED]), *rest]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
