"""From records to training batches: cached or fresh latents and texts, with the noise and timestep of each sample."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import CaptionSection, TrainConfig
from .data.buckets import LATENT_PIXELS
from .data.cache import TensorCache, latent_key, mask_key, text_key
from .data.captions import plain, texts_in_use, varies, vary
from .data.loader import prefetch
from .data.records import Record
from .data.views import View, draw_view, is_fresh, load_mask, load_pixels
from .errors import ModelFileError, OutputError
from .events import CacheProgress, Listener, StopCheck
from .families import Conditioning, Family, Model, Reading, join
from .files import require_space
from .memory import with_room
from .plan import Micro, Plan
from .seeds import derive


@dataclass(frozen=True)
class Batch:
    """Samples of one bucket. Exactly one of `latents` and `pixels` is there; `conditioning` is None for fresh text."""

    files: tuple[str, ...]
    captions: list[str]
    latents: Tensor | None  # (B, C, h, w) scaled, float32
    pixels: Tensor | None  # (B, 3, H, W) in [-1, 1]
    conditioning: Conditioning | None
    seeds: tuple[int, ...]  # one per sample: the start of its noise and timestep
    masks: Tensor | None = None  # (B, 1, h, w) at latent resolution, 0 to 1, float32: where the loss counts
    weights: tuple[float, ...] | None = None  # one per sample: the weight of its loss
    sizes: Tensor | None = None  # (B, 6): original height and width, crop top and left, target height and width, in pixels

    def pieces(self, size: int | None) -> list[Batch]:
        """The same samples in batches of at most `size`; None leaves the batch whole."""
        count = len(self.files)
        if size is None or count <= size:
            return [self]
        return [self._part(slice(start, start + size)) for start in range(0, count, size)]

    def _part(self, samples: slice) -> Batch:
        def part(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: tensor[samples] for name, tensor in value.items()}
            return None if value is None else value[samples]

        return Batch(**{item.name: part(getattr(self, item.name)) for item in fields(self)})


@dataclass(frozen=True)
class Feed:
    """Makes batches for a plan. `latents` and `texts` are the caches in use, or None where each step encodes anew."""

    plan: Plan
    latents: dict[tuple[Path, bool], str] | None  # picture, and whether it is mirrored -> cache key
    texts: dict[str, str] | None  # caption -> cache key
    cache: TensorCache
    latent_pixels: int = LATENT_PIXELS  # along one side of a latent

    def steps_from(self, start: int) -> Generator[list[Batch], None, None]:
        """Batches of each optimizer step, prepared by threads ahead of the consumer."""
        return prefetch(self.plan.steps_from(start), lambda micros: [self._training(micro) for micro in micros], ahead=4, threads=2)

    def first(self) -> Batch:
        """The first batch of training; the process that leads has a share of every one."""
        return self._training(next(self.plan.steps_from(0))[0])

    def validation(self, timesteps: int) -> Iterator[Batch]:
        """Each held-out picture once for each of `timesteps` parts of the noise range, always with the same noise."""
        seed = self.plan.config.train.seed
        for record, placement in zip(self.plan.held_out, self.plan.held_out_placements, strict=True):
            for part in range(timesteps):
                number = derive(seed, "validation", record.path.name, part)
                caption = plain(record.caption, record.caption_settings(self.plan.config.dataset))
                yield self._batch([record], [View(placement)], [caption], (number,))

    def repeated(self, number: int, captioned: bool, seeds: tuple[int, ...]) -> Batch:
        """A training picture as it is, once for each seed, with its plain caption or none."""
        record, view, count = self.plan.records[number], View(self.plan.placements[number]), len(seeds)
        caption = plain(record.caption, record.caption_settings(self.plan.config.dataset)) if captioned else ""
        return self._batch([record] * count, [view] * count, [caption] * count, seeds)

    def _training(self, micro: Micro) -> Batch:
        config, dataset = self.plan.config, self.plan.config.dataset
        records = [self.plan.records[number] for number in micro.records]
        seeds = tuple(derive(config.train.seed, "sample", micro.step, micro.first + place) for place in range(len(records)))
        epoch = self.plan.epoch_of(micro.step + 1)
        captions = [
            vary(record.caption, record.caption_settings(dataset), seed, epoch) for record, seed in zip(records, seeds, strict=True)
        ]
        views = [draw_view(self.plan.placements[number], dataset.augment, seed) for number, seed in zip(micro.records, seeds, strict=True)]
        return self._batch(records, views, captions, seeds)

    def _batch(self, records: Sequence[Record], views: Sequence[View], captions: list[str], seeds: tuple[int, ...]) -> Batch:
        latents = pixels = conditioning = masks = None
        pairs = list(zip(records, views, strict=True))
        if self.latents is not None:
            latents = torch.stack([self._cached(self.latents[record.path, view.flip])["latents"] for record, view in pairs])
        else:
            background = self.plan.config.dataset.background
            pixels = torch.stack([load_pixels(record.path, view, background) for record, view in pairs])
        weights = tuple(self._weight(record) for record in records) if self.plan.regularized else None
        if self.plan.masked:
            masks = torch.stack([self._mask(record, view) for record, view in pairs])
        if self.texts is not None:
            parts = [self._cached(self.texts[caption]) for caption in captions]
            conditioning = join([{name: tensor[None] for name, tensor in part.items()} for part in parts])
        sizes = torch.tensor([_sizes(record, view) for record, view in pairs])
        return Batch(tuple(str(record.path) for record in records), captions, latents, pixels, conditioning, seeds, masks, weights, sizes)

    def _weight(self, record: Record) -> float:
        return self.plan.config.loss.prior_weight if record.regularization else 1.0

    def _mask(self, record: Record, view: View) -> Tensor:
        """(1, h, w); kept in the cache where the latents are kept, for else every use needs another."""
        mask = record.mask
        if self.latents is None or not mask:
            return load_mask(record.path, mask.path, mask.alpha, view, self.latent_pixels)
        key = mask_key(record.digest, mask.digest, mask.alpha, view.placement, view.flip, self.latent_pixels)
        if (found := self.cache.get(key)) is None:
            found = {"mask": load_mask(record.path, mask.path, mask.alpha, view, self.latent_pixels)}
            with contextlib.suppress(OutputError):  # a full disk only means that it is made again next time
                self.cache.put(key, found)
        return found["mask"]

    def _cached(self, key: str) -> dict[str, Tensor]:
        tensors = self.cache.get(key)
        if tensors is None:
            raise RuntimeError(f"cache entry {key} disappeared while training; start again to rebuild it")
        return tensors


def fill_caches(plan: Plan, family: Family, model: Model, cache: TensorCache, text: bool, listen: Listener, stop: StopCheck) -> Feed:
    """Encode what is not in the cache yet. Stops early, with a usable cache, when `stop()` is true."""
    latents = _fill_latents(plan, family, model, cache, listen, stop) if caches_latents(plan.config) else None
    texts = None
    if text:
        records = (*plan.records, *plan.held_out)
        captions = sorted(texts_in_use([(record.caption, record.caption_settings(plan.config.dataset)) for record in records]))
        chunks = model.tokenizer.chunks  # what the encoders get to see, for another tokenizer or reading gives something else
        texts = {
            caption: text_key(caption, model.text_identity, model.dtype, model.clip_skip, str(chunks(caption))) for caption in captions
        }
        missing = [caption for caption in captions if cache.get(texts[caption]) is None]
        for done, caption in enumerate(missing):
            if stop():
                break
            with torch.no_grad():
                encoded = with_room(lambda caption=caption: family.encode_text(model, [caption]), model.device, "encoding captions")
            cache.put(texts[caption], {name: tensor[0].cpu() for name, tensor in encoded.items()})
            listen(CacheProgress("text", done + 1, len(missing)))
    return Feed(plan, latents, texts, cache, _latent_pixels(plan, family, model))


def caches_latents(config: TrainConfig) -> bool:
    """Whether pictures can be encoded once for the whole run."""
    return config.dataset.cache.latents and not is_fresh(config.dataset.augment)


def _sizes(record: Record, view: View) -> tuple[int, ...]:
    """What a model that knows picture sizes is told (Podell et al. 2023, arXiv 2307.01952, section 2.2)."""
    left, top = view.seen.crop
    width, height = view.placement.bucket
    return record.height, record.width, top, left, height, width


def reading_of(captions: CaptionSection) -> Reading:
    """How the settings want captions to be read."""
    return Reading(captions.max_tokens // 75, captions.weighted, brackets=captions.weighted)


def caches_text(config: TrainConfig, trains_text: bool) -> bool:
    """Whether captions can be encoded once for the whole run."""
    return config.dataset.cache.text and not trains_text and not varies(config.dataset.captions)


def _latent_pixels(plan: Plan, family: Family, model: Model) -> int:
    """Pixels along one side of a latent."""
    width, height = plan.placements[0].bucket
    return height // family.latent_shape(model, (width, height))[1]


def _all_views(plan: Plan) -> list[tuple[Record, View]]:
    """Every picture in each way in which it is used, where pictures are encoded once."""
    training = zip(plan.records, plan.placements, strict=True)
    flips = (False, True) if plan.config.dataset.augment.flip else (False,)
    held_out = zip(plan.held_out, plan.held_out_placements, strict=True)
    return [(record, View(place, flip)) for record, place in training for flip in flips] + [
        (record, View(place)) for record, place in held_out
    ]


def _fill_latents(
    plan: Plan, family: Family, model: Model, cache: TensorCache, listen: Listener, stop: StopCheck
) -> dict[tuple[Path, bool], str]:
    """Latents of every picture; threads decode pictures ahead of the encoder."""
    jobs = _all_views(plan)
    assert model.vae is not None, "latents are cached before the VAE is released"
    background, identity, dtype = plan.config.dataset.background, model.identity["vae"], model.vae.dtype

    def key(record: Record, view: View) -> str:
        return latent_key(record.digest, view.placement, identity, dtype, view.flip, background=background)

    keys = {(record.path, view.flip): key(record, view) for record, view in jobs}
    missing = [(record, view) for record, view in jobs if cache.get(keys[record.path, view.flip]) is None]
    size = sum(4 * math.prod(family.latent_shape(model, view.placement.bucket)) for _, view in missing)
    require_space(cache.folder, size, f"dataset.cache.dir: latents of {len(missing)} pictures")
    threads = min(8, os.cpu_count() or 4)  # a GPU encodes faster than two threads decode large photographs
    with closing(prefetch(missing, lambda job: load_pixels(job[0].path, job[1], background), 2 * threads, threads)) as decoded:
        for done, ((record, view), pixels) in enumerate(zip(missing, decoded, strict=False), start=1):
            if stop():
                break
            with torch.no_grad():
                encoded = with_room(lambda pixels=pixels: family.encode_images(model, pixels[None]), model.device, "encoding pictures")
            latents = encoded[0].cpu()
            if not torch.isfinite(latents).all():
                raise ModelFileError(f"the VAE gave values that are not finite for {record.path}; set base.vae to another VAE")
            cache.put(keys[record.path, view.flip], {"latents": latents})
            listen(CacheProgress("latents", done, len(missing)))
    return keys
