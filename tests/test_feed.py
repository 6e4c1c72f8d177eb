"""Each picture meets its own caption, and caches change nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import tiny
import torch

from trainer import loop, train
from trainer.data.cache import TensorCache
from trainer.events import CacheProgress
from trainer.families.sd import StableDiffusion
from trainer.feed import Feed
from trainer.objective import batch_loss
from trainer.plan import make_plan

SIZES = [(64, 64), (96, 64), (64, 96), (64, 64), (96, 64), (64, 96), (64, 64)]


def settings(folder: Path, *, shuffle: bool, latents: bool, text: bool = True) -> dict:
    return {
        "folders": [{"path": str(folder)}],
        "resolution": 64,
        "batch_size": 2,
        "buckets": {"step": 32},
        "captions": {"shuffle": shuffle},
        "cache": {"latents": latents, "text": text},
    }


@pytest.mark.parametrize("latents", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_picture_meets_its_own_caption(job, tmp_path, monkeypatch, latents, shuffle, base):
    """Through buckets, batches and shuffling: a latent is that of the file's colour, a caption has the file's tags."""
    folder = tiny.write_pictures(tmp_path / "seven", sizes=SIZES)
    family, model = tiny.load_model(base)
    texts, batches = [], []
    encode_text = StableDiffusion.encode_text
    monkeypatch.setattr(
        StableDiffusion, "encode_text", lambda self, model, captions: texts.append(list(captions)) or encode_text(self, model, captions)
    )
    monkeypatch.setattr(loop, "batch_loss", lambda *given: batches.append(given[2]) or batch_loss(*given))
    train(
        job(
            dataset=settings(folder, shuffle=shuffle, latents=latents),
            train={"epochs": 2, "precision": "fp32", "device": "cpu", "steps": None},
        )
    )

    check, *texts = texts  # before the first step, the model's kind of prediction is checked
    assert check == batches[0].captions[:1] * 2
    assert texts == [batch.captions for batch in batches]
    seen = [Path(file).name for batch in batches for file in batch.files]
    assert sorted(seen) == sorted(2 * [f"{number:02d}.png" for number in range(len(SIZES))])
    orders = set()
    for batch in batches:
        for place, (file, caption) in enumerate(zip(batch.files, batch.captions, strict=True)):
            number = int(Path(file).stem)
            own = tiny.caption(number).split(", ")
            assert sorted(caption.split(", ")) == sorted(own)
            orders.add(tuple(own.index(tag) for tag in caption.split(", ")))
            height, width = batch.pixels.shape[-2:] if batch.pixels is not None else [8 * side for side in batch.latents.shape[-2:]]
            colour = torch.tensor(tiny.colour(number)).view(3, 1, 1) / 127.5 - 1
            pixels = colour.expand(3, height, width)
            if latents:
                with torch.no_grad():
                    expected = family.encode_images(model, pixels[None])[0]
                torch.testing.assert_close(batch.latents[place], expected, rtol=1e-4, atol=1e-4)
            else:
                torch.testing.assert_close(batch.pixels[place], pixels, rtol=0, atol=0.01)
    assert (len(orders) > 1) == shuffle


def test_cached_captions_are_those_of_their_pictures(job, monkeypatch, base):
    family, model = tiny.load_model(base)
    batches = []
    monkeypatch.setattr(loop, "batch_loss", lambda *given: batches.append(given[2]) or batch_loss(*given))
    train(job(method={"train_text_encoder": False}))
    for batch in batches:
        assert batch.captions == [tiny.caption(int(Path(file).stem)) for file in batch.files]
        with torch.no_grad():
            expected = torch.cat([family.encode_text(model, [caption])["context"] for caption in batch.captions])
        assert torch.equal(batch.conditioning["context"], expected)


def test_cached_and_fresh_latents_give_bitwise_equal_trainings(job, pictures):
    runs = [
        train(job(dataset=settings(pictures, shuffle=False, latents=latents), save={"name": str(latents), "dtype": "fp32"}))
        for latents in (True, False)
    ]
    assert runs[0].losses == runs[1].losses
    assert tiny.differing(*(tiny.tensors_of(run.artefact) for run in runs)) == []


def test_cached_and_fresh_texts_give_equal_losses(job, pictures):
    """Texts are cached one by one and encoded fresh as a batch, so the last bits differ."""
    runs = [
        train(
            job(
                dataset=settings(pictures, shuffle=False, latents=True, text=text),
                save={"name": str(text)},
                method={"train_text_encoder": False},
            )
        )
        for text in (True, False)
    ]
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-4)


def test_pictures_are_decoded_while_others_are_encoded(job, monkeypatch):
    """The encoder has its second picture only after the last one was decoded."""
    from trainer import feed

    loaded, load, encode = threading.Event(), feed.load_pixels, StableDiffusion.encode_images
    paths, encoded = [], []

    def counted(path, *rest):
        paths.append((path, threading.current_thread()))
        pixels = load(path, *rest)
        if len(paths) == 5:
            loaded.set()
        return pixels

    def waiting(self, model, pixels):
        encoded.append(threading.current_thread())
        assert len(encoded) != 1 or loaded.wait(60), "nothing was decoded meanwhile"
        return encode(self, model, pixels)

    monkeypatch.setattr(feed.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(feed, "load_pixels", counted)
    monkeypatch.setattr(StableDiffusion, "encode_images", waiting)
    train(job(train={"steps": 1, "precision": "fp32", "device": "cpu"}))
    assert len(encoded) == len(paths) == 5
    assert not set(encoded) & {thread for _, thread in paths}


def test_a_second_run_encodes_nothing_again(job):
    def encoded(name: str, **sections) -> dict[str, int]:
        events = []
        train(
            job(**{"method": {"train_text_encoder": False}, "save": {"name": name}, "train": {"steps": 1, "device": "cpu"}, **sections}),
            listen=events.append,
        )
        counts = {"latents": 0, "text": 0}
        for event in events:
            if isinstance(event, CacheProgress):
                counts[event.kind] += 1
        return counts

    assert encoded("first") == {"latents": 5, "text": 5}
    assert encoded("second") == {"latents": 0, "text": 0}
    assert encoded("skip", base={"checkpoint": job().base.checkpoint, "clip_skip": 2}) == {"latents": 0, "text": 5}
    assert encoded("coarse", train={"steps": 1, "device": "cpu", "precision": "bf16"}) == {"latents": 5, "text": 5}


def test_another_tokenizer_does_not_find_the_texts_of_the_first(job, tmp_path):
    """A caption that gives other token ids is another input of the text encoder."""
    other = tiny.write_tokenizer(tmp_path / "other")
    (other / "merges.txt").write_text("#version: 0.2\no l\n", encoding="utf-8")
    words = (other / "vocab.json").read_text(encoding="utf-8").replace('"<unused0>"', '"ol"')
    (other / "vocab.json").write_text(words, encoding="utf-8")
    counts = []
    for name, tokenizer in (("first", None), ("second", str(other))):
        events = []
        base = {"checkpoint": job().base.checkpoint, "tokenizer": tokenizer}
        train(
            job(base=base, method={"train_text_encoder": False}, save={"name": name}, train={"steps": 1, "device": "cpu"}),
            listen=events.append,
        )
        counts.append(sum(isinstance(event, CacheProgress) and event.kind == "text" for event in events))
    assert counts == [5, 5]


def test_noise_and_timesteps_differ_between_samples_and_steps_but_not_between_runs(job, monkeypatch):
    runs = []
    for name in ("a", "b"):
        seeds = []
        monkeypatch.setattr(loop, "batch_loss", lambda *given, seeds=seeds: seeds.extend(given[2].seeds) or batch_loss(*given))
        train(job(save={"name": name}))
        runs.append(seeds)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == len(runs[0]) >= 7


def test_every_held_out_picture_has_noise_of_its_own_that_stays(job, tmp_path):
    def seeds() -> list[int]:
        plan = make_plan(job(validate={"split": 0.5}))
        assert len(plan.held_out) > 1
        feed = Feed(plan, None, None, TensorCache(tmp_path))
        return [seed for batch in feed.validation(8) for seed in batch.seeds]

    found = seeds()
    assert len(set(found)) == len(found) and found == seeds()


def test_models_that_know_sizes_are_told_of_the_picture_its_crop_and_its_bucket():
    """Original height and width, top and left of the crop in the resized picture, height and width trained at."""
    from trainer.data.buckets import Placement
    from trainer.data.records import Record
    from trainer.data.views import View
    from trainer.feed import _sizes

    record = Record(Path("a.png"), "", "none", 256, 120, 1, Path(), "")
    assert _sizes(record, View(Placement(bucket=(64, 48), resized=(104, 49), crop=(20, 1)))) == (120, 256, 1, 20, 48, 64)
    mirrored = View(Placement(bucket=(64, 48), resized=(104, 49), crop=(10, 1)), flip=True)
    assert _sizes(record, mirrored) == (120, 256, 1, 30, 48, 64)  # 104 - 64 - 10 pixels are on the side that is now the left
