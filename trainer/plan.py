"""Everything that is known before a weight is read: pictures, buckets, steps, sizes. `check` prints it, `train` follows it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from .config import FolderSection, TrainConfig
from .data.buckets import Placement, place
from .data.records import Record, Scan, scan
from .data.sampler import epoch_repeats, plan_epoch
from .distributed import ALONE, Team
from .errors import DatasetError, Stopped
from .events import StopCheck, never
from .places import picture_memory_of
from .seeds import derive


@dataclass(frozen=True)
class Micro:
    """One micro-batch: record numbers, and where its first sample stands in its optimizer step."""

    step: int  # from 0
    first: int
    records: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The pictures of a job in buckets, and its steps."""

    config: TrainConfig
    scan: Scan
    records: tuple[Record, ...]  # trained on
    placements: tuple[Placement, ...]  # of `records`
    held_out: tuple[Record, ...]  # validated on
    held_out_placements: tuple[Placement, ...]
    batches_per_epoch: int
    team: Team = ALONE

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the last of an epoch takes what is left, so that no picture waits for the next epoch."""
        return math.ceil(self.batches_per_epoch / self.config.train.gradient_accumulation)

    @property
    def total_steps(self) -> int:
        return self.config.train.steps or self.config.train.epochs * self.steps_per_epoch

    @property
    def epochs(self) -> int:
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def epoch_of(self, steps_done: int) -> int:
        """The number, from 1, of the epoch that the last of `steps_done` steps belongs to."""
        return max(1, math.ceil(steps_done / self.steps_per_epoch))

    def epoch_batches(self, epoch: int) -> list[tuple[int, ...]]:
        """Record numbers of every batch of an epoch (from 0); each process takes its share of each."""
        buckets = [placement.bucket for placement in self.placements]
        batch_size = self.config.dataset.batch_size * self.team.size
        return plan_epoch(buckets, self.repeats(epoch), batch_size, self.config.train.seed, epoch)

    def repeats(self, epoch: int) -> list[int]:
        """How often each record occurs in an epoch (from 0)."""
        buckets = [placement.bucket for placement in self.placements]
        repeats, general = [record.repeats for record in self.records], [record.regularization for record in self.records]
        return epoch_repeats(buckets, repeats, general, self.config.train.seed, epoch)

    @cached_property
    def masked(self) -> bool:
        """Whether any picture of the job has a mask."""
        return any(record.mask for record in (*self.records, *self.held_out))

    @cached_property
    def regularized(self) -> bool:
        """Whether any picture of the job keeps the class general."""
        return any(record.regularization for record in self.records)

    def digest(self) -> str:
        """Changes when a picture, caption, repeat count, bucket, mask or role of a picture in the job changes."""
        parts = [
            (role, record.digest, record.caption, record.repeats, placement.bucket, placement.resized, placement.crop)
            + ((record.mask.alpha, record.mask.digest) if record.mask else ())
            + (("regularization",) if record.regularization else ())
            for role, records, placements in (
                ("train", self.records, self.placements),
                ("held out", self.held_out, self.held_out_placements),
            )
            for record, placement in zip(records, placements, strict=True)
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def steps_from(self, start: int) -> Iterator[list[Micro]]:
        """This process's micro-batches of each optimizer step, from step `start` (from 0) to the end."""
        accumulation = self.config.train.gradient_accumulation
        epoch, batches = -1, []
        for step in range(start, self.total_steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                batches = self.epoch_batches(epoch)
            first = step % self.steps_per_epoch * accumulation
            micros, samples = [], 0
            for records in batches[first : first + accumulation]:
                begin, end = (-(-len(records) * place // self.team.size) for place in (self.team.rank, self.team.rank + 1))
                if begin < end:
                    micros.append(Micro(step, samples + begin, records[begin:end]))
                samples += len(records)
            yield micros


def make_plan(config: TrainConfig, stop: StopCheck = never, team: Team = ALONE) -> Plan:
    """Scan the folders and lay out the run. DatasetError where there is nothing to train on."""
    scanned = scan(config.dataset, stop, picture_memory_of(config))
    if scanned.stopped:
        raise Stopped
    if not scanned.records:
        reasons = "; ".join(f"{item.path.name}: {item.reason}" for item in scanned.skipped[:5])
        raise DatasetError(f"dataset.folders: no picture can be trained on ({reasons or 'the folders hold none'})")
    training, held_out = _split(scanned.records, config.validation.split, config.train.seed)
    if config.validation.folder:
        found = _scan_held_out(config, training, stop)
        held_out = found.records
        scanned = replace(scanned, skipped=scanned.skipped + found.skipped, warnings=scanned.warnings + found.warnings)
    placements = tuple(place(record.width, record.height, config.dataset) for record in training)
    plan = Plan(
        config=config,
        scan=scanned,
        records=training,
        placements=placements,
        held_out=held_out,
        held_out_placements=tuple(place(record.width, record.height, config.dataset) for record in held_out),
        batches_per_epoch=0,
        team=team,
    )
    return replace(plan, batches_per_epoch=len(plan.epoch_batches(0)))


def without_effect(plan: Plan) -> list[str]:
    """Warnings about settings that change nothing because of the length of the run or the shapes of its pictures."""
    warnings = []
    every = plan.config.dataset.captions.dropout_every_epochs
    if every and every > plan.epochs:
        warnings.append(f"dataset.captions.dropout_every_epochs {every} has no effect: the run has {plan.epochs} epochs")
    if plan.config.loss.prior_weight != 1 and not plan.regularized:
        warnings.append(f"loss.prior_weight {plan.config.loss.prior_weight:g} has no effect: no folder holds regularization pictures")
    if plan.config.dataset.augment.random_crop and all(placement.resized == placement.bucket for placement in plan.placements):
        warnings.append("dataset.augment.random_crop changes nothing: every picture fits its bucket without a crop")
    return warnings


def _scan_held_out(config: TrainConfig, training: tuple[Record, ...], stop: StopCheck) -> Scan:
    """The pictures of `validate.folder`, read like the training pictures."""
    folder = config.validation.folder or ""
    found = scan(config.dataset.model_copy(update={"folders": (FolderSection(path=folder),)}), stop, picture_memory_of(config))
    if found.stopped:
        raise Stopped
    if not found.records:
        raise DatasetError(f"validate.folder: {folder} holds no picture that can be used")
    trained = {record.digest for record in training}
    both = [record.path.name for record in found.records if record.digest in trained]
    if both:
        raise DatasetError(f"validate.folder: {both[0]} is trained on too, so its loss would say nothing; take it out of one folder")
    return found


def _split(records: tuple[Record, ...], share: float, seed: int) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Training and held-out records. Which are held out depends on the seed and the file names alone; regularization never is.

    Copies of a picture are held out together: one that is trained on would say nothing.
    """
    if share == 0:
        return records, ()
    learned = [record for record in records if not record.regularization]
    order = sorted(learned, key=lambda record: derive(seed, "held out", record.path.parent.name, record.path.name))
    different = list(dict.fromkeys(record.digest for record in order))
    if len(different) < 2:
        raise DatasetError(f"validate.split: {share} of {len(different)} picture leaves none to train on; set it to 0 or add pictures")
    chosen = set(different[: min(len(different) - 1, max(1, round(len(different) * share)))])
    held_out = tuple(record for record in learned if record.digest in chosen)
    return tuple(record for record in records if record.regularization or record.digest not in chosen), held_out
