"""Caption settings in a whole training: what each use sees, what is cached, and that a resumed run repeats it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from safetensors import safe_open

from trainer import check, loop, train, validate
from trainer.data.cache import TensorCache
from trainer.events import CacheProgress, StepDone, Warned
from trainer.feed import Feed
from trainer.objective import batch_loss
from trainer.plan import make_plan

FROZEN_TEXT = {"method": {"train_text_encoder": False}}


@pytest.fixture
def seen(monkeypatch):
    """The batches of the trainings of a test, and of their validations."""
    found = {"training": [], "validation": []}
    for module, name in ((loop, "training"), (validate, "validation")):
        monkeypatch.setattr(module, "batch_loss", lambda *args, name=name, **more: found[name].append(args[2]) or batch_loss(*args, **more))
    return found


def with_captions(job, captions, **sections):
    dataset = job().dataset.model_dump(mode="json") | {"captions": captions}
    return job(**{"dataset": dataset, **sections})


def by_picture(batches):
    """(picture number, caption) of every sample, in order."""
    return [(int(Path(file).stem), caption) for batch in batches for file, caption in zip(batch.files, batch.captions, strict=True)]


@pytest.mark.parametrize("captions", [{"dropout": 0.5, "prefix": "sks,"}, {"dropout_every_epochs": 2, "suffix": ", end"}])
def test_dropped_captions_come_from_the_cache_too(job, seen, captions):
    events = []
    train(with_captions(job, captions, train={"steps": 6, "precision": "fp32", "device": "cpu"}, **FROZEN_TEXT), listen=events.append)
    assert sum(isinstance(event, CacheProgress) and event.kind == "text" for event in events) == 5 + 1
    assert all(batch.conditioning is not None for batch in seen["training"])
    frame = ("sks, {}" if "prefix" in captions else "{}, end").format
    assert all(text in ("", frame(tiny.caption(number))) for number, text in by_picture(seen["training"]))
    if "dropout_every_epochs" in captions:  # three steps an epoch
        dropped = [{caption == "" for caption in batch.captions} for batch in seen["training"]]
        assert dropped == 3 * [{False}] + 3 * [{True}]


@pytest.mark.parametrize(
    "captions", [{"tag_dropout": 0.5}, {"shuffle": True}, {"wildcards": True, "prefix": "{a|b}"}], ids=lambda value: next(iter(value))
)
def test_varying_captions_are_encoded_at_each_step_but_validated_without_chance(job, seen, captions):
    events = []
    config = with_captions(
        job, captions | {"dropout": 0.3}, validate={"split": 0.2, "every_epochs": 1}, train={"steps": 6, "device": "cpu"}, **FROZEN_TEXT
    )
    train(config, listen=events.append)
    assert not [event for event in events if isinstance(event, CacheProgress) and event.kind == "text"]
    assert all(batch.conditioning is None for batch in seen["training"])
    held_out = by_picture(seen["validation"])
    number = held_out[0][0]
    assert set(held_out) == {(number, ("a " if "prefix" in captions else "") + tiny.caption(number))}
    assert "" in {text for _, text in by_picture(seen["training"])}


def test_each_setting_changes_the_captions_and_nothing_else(job, tmp_path):
    """The order of pictures, their noise and their timesteps stay."""
    every = [
        {},
        {"dropout": 0.5},
        {"dropout_every_epochs": 2},
        {"tag_dropout": 0.5},
        {"prefix": "p"},
        {"suffix": "s"},
        {"wildcards": True, "prefix": "{p|q}"},
        {"keep_tokens_separator": "nr"},
        {"shuffle": True},
    ]
    runs = []
    for captions in every:
        feed = Feed(make_plan(with_captions(job, captions)), None, None, TensorCache(tmp_path))
        runs.append([(batch.files, batch.seeds, tuple(batch.captions)) for step in feed.steps_from(0) for batch in step])
    assert len({tuple((files, seeds) for files, seeds, _ in run) for run in runs}) == 1
    assert len({tuple(captions for *_, captions in run) for run in runs}) == len(every)


def test_resuming_repeats_the_captions(job, seen):
    captions = {"dropout": 0.2, "tag_dropout": 0.4, "wildcards": True, "prefix": "{a|b|c},", "shuffle": True, "dropout_every_epochs": 3}
    length = {"train": {"steps": 7, "precision": "fp32", "device": "cpu"}}
    whole = train(with_captions(job, captions, save={"name": "whole", "dtype": "fp32"}, **length))
    straight = by_picture(seen["training"])
    seen["training"].clear()
    steps = []
    parts = with_captions(job, captions, save={"name": "parts", "dtype": "fp32"}, **length)
    train(parts, listen=lambda event: steps.append(event) if isinstance(event, StepDone) else None, stop=lambda: len(steps) >= 4)
    second = train(parts, resume=True)
    assert second.losses == whole.losses
    assert by_picture(seen["training"])[-4:] == straight[-4:]
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(second.artefact)) == []


def test_metadata_report_and_warnings(job):
    captions = {"dropout": 0.25, "dropout_every_epochs": 99, "tag_dropout": 0.5, "prefix": "sks,", "keep_tokens": 1}
    config = with_captions(job, captions)
    report = check(config)
    assert "captions vary: 50% of tags left out, 25% without caption, no captions in every epoch that is a multiple of 99" in report.lines()
    assert report.as_dict()["caption_variations"][0] == "50% of tags left out"
    expected = "dataset.captions.dropout_every_epochs 99 has no effect: the run has 2 epochs"
    assert expected in report.as_dict()["warnings"]
    events = []
    result = train(config, listen=events.append)
    assert expected in [event.text for event in events if isinstance(event, Warned)]
    with safe_open(result.artefact, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_caption_dropout_rate"] == "0.25"
    assert metadata["ss_caption_dropout_every_n_epochs"] == "99"
    assert metadata["ss_caption_tag_dropout_rate"] == "0.5"
    assert json.loads(metadata["ss_tag_frequency"])["pictures0"]["sks"] == 5
