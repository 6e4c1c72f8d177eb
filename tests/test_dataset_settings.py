"""Augmentation, masks and regularization pictures in batches, plans, reports and whole trainings."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image
from safetensors import safe_open

from trainer import check, loop, train
from trainer.cli import main
from trainer.config import to_yaml
from trainer.data.cache import TensorCache
from trainer.errors import ConfigError, DatasetError
from trainer.events import CacheProgress, DatasetScanned, StepDone, Warned
from trainer.feed import Feed, fill_caches
from trainer.objective import batch_loss
from trainer.plan import make_plan, without_effect
from trainer.preflight import check_settings

FROZEN_TEXT = {"method": {"train_text_encoder": False}}
SHORT = {"train": {"steps": 3, "precision": "fp32", "device": "cpu"}}


def with_dataset(job, dataset, **sections):
    return job(**{"dataset": job().dataset.model_dump(mode="json") | dataset, **sections})


def fresh_batches(config, folder):
    """All batches of a run, without a model: pictures as pixels."""
    feed = Feed(make_plan(config), None, None, TensorCache(folder))
    return [batch for step in feed.steps_from(0) for batch in step]


@pytest.fixture
def scenes(tmp_path):
    """Pictures with a bright spot at a place of their own, and masks of the spots, in two bucket shapes."""
    for number, size in enumerate([(96, 64), (80, 64), (64, 90), (64, 64)]):
        spot = Image.new("L", size)
        spot.paste(255, (8 + 8 * number, 8, 32 + 8 * number, 40))
        (tmp_path / "scenes" / "masks").mkdir(parents=True, exist_ok=True)
        spot.convert("RGB").save(tmp_path / "scenes" / f"{number:02d}.png")
        spot.save(tmp_path / "scenes" / "masks" / f"{number:02d}.png")
        (tmp_path / "scenes" / f"{number:02d}.txt").write_text(tiny.caption(number))
    return tmp_path / "scenes"


def masked(scenes, **dataset):
    return {"folders": [{"path": str(scenes), "masks": str(scenes / "masks")}]} | dataset


@pytest.mark.parametrize(
    "augment", [{}, {"flip": True}, {"random_crop": True}, {"rotate": 25.0}, {"flip": True, "random_crop": True, "rotate": 25.0}]
)
def test_each_picture_meets_its_own_mask_and_caption(job, tmp_path, scenes, augment):
    config = with_dataset(job, masked(scenes, augment=augment), train={"steps": None, "epochs": 3})
    batches = fresh_batches(config, tmp_path)
    assert len(batches) >= 6
    for batch in batches:
        height, width = batch.pixels.shape[-2:]
        assert batch.masks.shape == (len(batch.files), 1, height // 8, width // 8) and batch.masks.dtype == torch.float32
        bright = torch.nn.functional.avg_pool2d((batch.pixels[:, :1] + 1) / 2, 8)
        torch.testing.assert_close(batch.masks, bright, atol=0.1, rtol=0)
        assert batch.captions == [tiny.caption(int(Path(file).stem)) for file in batch.files]


def test_each_setting_changes_the_pictures_and_nothing_else(job, tmp_path, scenes):
    runs = []
    for augment in ({}, {"flip": True}, {"random_crop": True}, {"rotate": 5.0}, {"color": 0.5}):
        batches = fresh_batches(with_dataset(job, masked(scenes, augment=augment)), tmp_path)
        assert [batch.files for batch in batches] == [batch.files for batch in fresh_batches(with_dataset(job, masked(scenes)), tmp_path)]
        runs.append(([(batch.files, batch.seeds, tuple(batch.captions)) for batch in batches], [batch.pixels for batch in batches]))
    assert all(facts == runs[0][0] for facts, _ in runs)
    for number, (_, pixels) in enumerate(runs):
        for _, others in runs[:number]:
            assert any(not torch.equal(mine, other) for mine, other in zip(pixels, others, strict=True))


def test_without_masks_there_are_none_and_pictures_without_one_count_whole(job, tmp_path, scenes):
    assert all(batch.masks is None for batch in fresh_batches(job(), tmp_path))
    (scenes / "masks" / "02.png").unlink()
    for batch in fresh_batches(with_dataset(job, masked(scenes), train={"epochs": 1, "steps": None}), tmp_path):
        for file, mask in zip(batch.files, batch.masks, strict=True):
            assert (mask.min() == 1) == file.endswith("02.png")


def test_cached_masks_and_mirrored_latents_equal_fresh_ones(job, base, tmp_path, scenes):
    config = with_dataset(job, masked(scenes, augment={"flip": True}), train={"steps": None, "epochs": 2})
    family, model = tiny.load_model(base)
    plan, cache, events = make_plan(config), TensorCache(tmp_path / "cache"), []
    cached = fill_caches(plan, family, model, cache, False, events.append, lambda: False)
    assert sum(isinstance(event, CacheProgress) for event in events) == 2 * 4, "each picture both ways"
    fresh = Feed(plan, None, None, cache)
    flips = set()
    for _ in range(2):  # the second time, masks come from the cache
        for mine, other in zip(cached.steps_from(0), fresh.steps_from(0), strict=True):
            for batch, expected in zip(mine, other, strict=True):
                assert batch.files == expected.files and torch.equal(batch.masks, expected.masks)
                with torch.no_grad():
                    latents = torch.cat([family.encode_images(model, pixels[None]) for pixels in expected.pixels])
                torch.testing.assert_close(batch.latents, latents)
                flips |= {(file, str(mask.tolist())) for file, mask in zip(batch.files, batch.masks, strict=True)}
    assert len(flips) > 4, "some picture was used both ways"


def test_sizes_tell_the_crop_of_the_picture_as_it_is_seen(job, tmp_path, scenes):
    """Original height and width, crop top and left, target height and width; of a mirrored picture counted from its new left."""
    crops = set()
    for augment in ({}, {"flip": True}, {"random_crop": True}, {"flip": True, "random_crop": True}):
        config = with_dataset(job, masked(scenes, augment=augment), train={"steps": None, "epochs": 4})
        for batch in fresh_batches(config, tmp_path):
            for file, (height, width, _top, left, target_height, target_width), pixels in zip(
                batch.files, batch.sizes.tolist(), batch.pixels, strict=True
            ):
                with Image.open(file) as image:
                    assert (width, height) == image.size
                assert (target_height, target_width) == tuple(pixels.shape[-2:])
                if file.endswith("00.png") and (target_width, target_height) == (64, 64):  # 96x64: an overhang of 32, the spot at 8
                    seen = (pixels[0, 24] > 0).nonzero().flatten().tolist()
                    crops.add(left)
                    assert not augment.get("random_crop") or 0 <= left <= 32
                    if not augment.get("flip"):
                        assert seen == [column - left for column in range(8, 32) if column >= left]
    assert 16 in crops and len(crops) > 2


def test_validation_sees_pictures_as_they_are(job, tmp_path, scenes):
    everything = {"flip": True, "random_crop": True, "rotate": 20.0, "color": 1.0}
    batches = []
    for augment in ({}, everything):
        config = with_dataset(job, masked(scenes, augment=augment), validate={"split": 0.5})
        batches.append(list(Feed(make_plan(config), None, None, TensorCache(tmp_path)).validation(2)))
    assert len(batches[0]) == 4
    for plain, other in zip(*batches, strict=True):
        assert torch.equal(plain.pixels, other.pixels) and torch.equal(plain.masks, other.masks)


def test_a_resumed_run_repeats_the_augmentation(job, scenes):
    dataset = masked(scenes, augment={"flip": True, "random_crop": True, "rotate": 10.0, "color": 0.5})
    length = {"train": {"steps": 5, "precision": "fp32", "device": "cpu"}} | FROZEN_TEXT
    whole = train(with_dataset(job, dataset, save={"name": "whole", "dtype": "fp32"}, **length))
    steps, parts = [], with_dataset(job, dataset, save={"name": "parts", "dtype": "fp32"}, **length)
    train(parts, listen=lambda event: steps.append(event) if isinstance(event, StepDone) else None, stop=lambda: len(steps) >= 2)
    second = train(parts, resume=True)
    assert second.losses == whole.losses
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(second.artefact)) == []


def test_fresh_encodings_are_said_and_the_vae_is_counted(job, base):
    quiet = check(with_dataset(job, {"augment": {"flip": True}}))
    assert "augmentation: half of the uses mirrored; pictures are encoded twice" in quiet.lines()
    report = check(with_dataset(job, {"augment": {"rotate": 5.0, "color": 0.3}}))
    assert "augmentation: turned by up to 5 degrees, colours changed with strength 0.3; pictures are encoded each step" in report.lines()
    assert [text for text in report.as_dict()["warnings"] if "augment.rotate, augment.color: each step encodes its pictures anew" in text]
    assert not [text for text in quiet.as_dict()["warnings"] if "anew" in text]
    assert report.estimate.base_mib > quiet.estimate.base_mib
    assert report.as_dict()["encodings"] == "each step" and quiet.as_dict()["encodings"] == "twice"
    assert check_settings(with_dataset(job, {"augment": {"rotate": 5.0}, "cache": {"latents": False}})) == []


def test_random_crop_that_crops_nothing_is_said(job, tmp_path):
    folder = tiny.write_pictures(tmp_path / "square", count=2)
    report = check(with_dataset(job, {"folders": [{"path": str(folder)}], "augment": {"random_crop": True}}))
    assert [text for text in report.as_dict()["warnings"] if "random_crop changes nothing" in text]


@pytest.fixture
def classes(tmp_path):
    """Six pictures of a class, of another size, without captions."""
    return tiny.write_pictures(tmp_path / "有 空格" / "1_some_cat", sizes=[(32, 32)] * 6, captions=False)


def regular(job, classes, **more):
    return {"folders": [*job().dataset.model_dump(mode="json")["folders"], {"path": str(classes), "regularization": True} | more]}


def test_regularization_doubles_the_epoch_and_takes_turns(job, tmp_path, classes):
    config = with_dataset(job, regular(job, classes) | {"captions": {"prefix": "sks,", "missing": "refuse"}})
    plan = make_plan(config)
    plain = make_plan(job())
    assert (sum(plain.repeats(0)), sum(plan.repeats(0))) == (5, 10)
    assert plan.steps_per_epoch > plain.steps_per_epoch and plan.total_steps == 4  # the job's own number of steps
    used = Counter()
    for epoch in range(6):
        numbers = [number for batch in plan.epoch_batches(epoch) for number in batch]
        assert sorted(number for number in numbers if not plan.records[number].regularization) == list(range(5))
        used.update(plan.records[number].path.name for number in numbers if plan.records[number].regularization)
    assert set(used.values()) == {5}  # 6 epochs of 5 samples over 6 pictures
    for batch in fresh_batches(config, tmp_path):
        for file, caption in zip(batch.files, batch.captions, strict=True):
            own = f"sks, {tiny.caption(int(Path(file).stem))}"
            assert caption == ("some cat" if "some_cat" in file else own)
    assert check(config).as_dict()["regularization"] == {"images": 6, "samples_per_epoch": 5}
    assert "regularization: 6 pictures; 5 samples per epoch beside 5 to learn from" in check(config).lines()
    assert any(line.startswith("steps: 10 samples / batch 2 = ") for line in check(config).lines())


def test_regularization_pictures_have_the_prior_weight(job, tmp_path, classes):
    assert all(batch.weights is None for batch in fresh_batches(job(), tmp_path))
    config = with_dataset(job, regular(job, classes), loss={"prior_weight": 0.25}, train={"steps": None, "epochs": 1})
    batches = fresh_batches(config, tmp_path)
    assert sum(len(batch.files) for batch in batches) == 10
    for batch in batches:
        assert batch.weights == tuple(0.25 if "some_cat" in file else 1.0 for file in batch.files)
    assert not [text for text in without_effect(make_plan(config)) if "prior_weight" in text]
    (warning,) = without_effect(make_plan(job(loss={"prior_weight": 0.5})))
    assert "loss.prior_weight 0.5 has no effect" in warning


def test_regularization_is_never_held_out(job, classes):
    plan = make_plan(with_dataset(job, regular(job, classes), validate={"split": 0.6}))
    assert len(plan.held_out) == 3 and not any(record.regularization for record in plan.held_out)
    assert sum(record.regularization for record in plan.records) == 6
    assert sum(plan.repeats(0)) == 2 + 2


def test_the_role_and_the_mask_of_a_picture_belong_to_the_job(job, classes, scenes):
    folders = job().dataset.model_dump(mode="json")["folders"]
    digests = {
        make_plan(with_dataset(job, {"folders": [*folders, {"path": str(classes), "regularization": extra}]})).digest()
        for extra in (True, False)
    }
    assert len(digests) == 2
    before = make_plan(with_dataset(job, masked(scenes))).digest()
    Image.new("L", (96, 64), 200).save(scenes / "masks" / "00.png")
    assert make_plan(with_dataset(job, masked(scenes))).digest() != before


def test_what_is_held_out_is_not_counted_as_trained(job):
    report = check(job(validate={"split": 0.4}, train={"steps": None, "epochs": 1})).as_dict()
    assert (report["images"], report["held_out"], report["samples_per_epoch"]) == (3, 2, 3)
    assert report["batches_per_epoch"] == report["steps_per_epoch"] == report["steps"]
    events = []
    train(job(validate={"split": 0.4}, train={"steps": 1}), listen=events.append)
    (scanned,) = [event for event in events if isinstance(event, DatasetScanned)]
    assert scanned.report["images"] == 3


def test_copies_of_a_picture_are_held_out_together(job, tmp_path):
    pictures = tiny.write_pictures(tmp_path / "pictures", count=4)
    (pictures / "copy.png").write_bytes((pictures / "00.png").read_bytes())
    (pictures / "copy.txt").write_text("a copy", encoding="utf-8")
    for seed in range(8):
        plan = make_plan(
            with_dataset(job, {"folders": [{"path": str(pictures)}]}, validate={"split": 0.25}, train={**SHORT["train"], "seed": seed})
        )
        assert {record.digest for record in plan.records}.isdisjoint(record.digest for record in plan.held_out)
        assert len(plan.records) + len(plan.held_out) == 5 and plan.held_out


def test_one_picture_listed_twice_leaves_nothing_to_train_on(job, tmp_path):
    folder = {"path": str(tiny.write_pictures(tmp_path / "one", count=1))}
    with pytest.raises(DatasetError, match=r"validate\.split: 0\.5 of 1 picture leaves none to train on"):
        make_plan(with_dataset(job, {"folders": [folder, folder]}, validate={"split": 0.5}))


def test_there_must_be_something_to_learn(job, classes, tmp_path):
    with pytest.raises(ConfigError, match="every folder is a regularization folder"):
        with_dataset(job, {"folders": [{"path": str(classes), "regularization": True}]})
    bare = tiny.write_pictures(tmp_path / "bare", count=1, captions=False)
    folders = [{"path": str(bare)}, {"path": str(classes), "regularization": True}]
    with pytest.raises(DatasetError, match="regularization pictures only"):
        make_plan(with_dataset(job, {"folders": folders}))
    with pytest.raises(ConfigError, match=r"dataset\.folders\.0\.masks"):
        check_settings(with_dataset(job, {"folders": [{"path": str(bare), "masks": str(tmp_path / "gone")}]}))


@pytest.mark.parametrize(("order", "first"), [("frequency", "5\tflat\n"), ("alphabetical", "colour 0\n"), ("none", None)])
def test_metadata_and_tag_list(job, classes, order, first):
    dataset = regular(job, classes, repeats=2) | {"augment": {"flip": True}}
    result = train(with_dataset(job, dataset, save={"name": "标签 a", "tag_list": order}, **(SHORT | FROZEN_TEXT)))
    file = result.run_dir / "标签 a-tags.txt"
    assert file.is_file() == (first is not None)
    if first:
        text = file.read_text(encoding="utf-8")
        assert text.startswith(first) and len(text.splitlines()) == 12 and "cat" not in text
    with safe_open(result.artefact, "pt") as saved:
        metadata = saved.metadata()
    expected = {"ss_num_train_images": "5", "ss_num_reg_images": "12", "ss_flip_aug": "True", "ss_random_crop": "False"}
    assert expected.items() <= metadata.items() and metadata["ss_color_aug"] == "False"
    assert json.loads(metadata["ss_reg_dataset_dirs"]) == {"1_some_cat": {"n_repeats": 2, "img_count": 6}}
    assert list(json.loads(metadata["ss_dataset_dirs"])) == ["pictures0"] == list(json.loads(metadata["ss_tag_frequency"]))


def test_tags_command(job, pictures, tmp_path, capsys):
    assert main(["tags", str(pictures), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["5\tflat", "5\tplain", "1\tcolour 0"]
    assert json.loads(lines[-1])["tags"]["plain"] == 5
    (tmp_path / "job.yaml").write_text(to_yaml(job()))
    assert main(["tags", str(tmp_path / "job.yaml"), "--sort", "alphabetical", "--set", "dataset.captions.prefix=sks,"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sks"
    assert main(["tags", str(pictures), "--set", "a=b"]) == 2


def test_masked_and_regularized_training_runs(job, scenes, classes, monkeypatch):
    """In a whole run, with cached latents and texts."""
    batches, events = [], []
    monkeypatch.setattr(loop, "batch_loss", lambda *args, **more: batches.append(args[2]) or batch_loss(*args, **more))
    dataset = masked(scenes)
    dataset["folders"].append({"path": str(classes), "regularization": True})
    (scenes / "masks" / "03.png").unlink()
    train(
        with_dataset(job, dataset, train={"epochs": 1, "steps": None, "precision": "fp32", "device": "cpu"}, **FROZEN_TEXT),
        listen=events.append,
    )
    assert [event.text for event in events if isinstance(event, Warned)] == ["1 pictures have no mask, so all of them is learned: 03.png"]
    for batch in batches:
        assert batch.masks.shape[-2:] == batch.latents.shape[-2:]
        for file, mask in zip(batch.files, batch.masks, strict=True):
            assert (mask.min() == 1) == ("some_cat" in file or file.endswith("03.png"))
