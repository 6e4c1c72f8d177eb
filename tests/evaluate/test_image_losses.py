"""Odd pictures are named, ordinary ones are not."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from PIL import Image

from trainer.cli import main
from trainer.config import from_dict, to_yaml
from trainer.demo import base_folder, dataset_folder
from trainer.evaluate.image_losses import ODD, ImageLoss, _judged, _losses, measure_images, robust_scores

CONDITIONS = ("base", "base, no caption", "lora", "lora, no caption")


def test_scores_by_hand():
    """Median 3, distances 2 1 0 1 7, their median 1."""
    assert robust_scores(np.array([1.0, 2.0, 3.0, 4.0, 10.0])).tolist() == pytest.approx([-1.349, -0.6745, 0, 0.6745, 4.7215])
    assert np.abs(robust_scores(np.array([1.0, 1.0, 1.0, 1.001]))).max() == pytest.approx(0.1)  # less than a per cent is nothing


def made(seed: int, count: int = 14) -> dict[str, np.ndarray]:
    """Losses of ordinary pictures: unlike each other by a third, improved by the LoRA by a fifth, by the caption by a tenth."""
    rng = np.random.default_rng(seed)
    own = rng.lognormal(-2, 0.3, (count, 1)) * np.linspace(2, 0.3, 8)
    factors = (0.9, 1.0, 0.7, 0.8)
    return {name: own * factor * rng.lognormal(0, 0.02, (count, 8)) for name, factor in zip(CONDITIONS, factors, strict=True)}


@pytest.mark.parametrize(
    ("factors", "word"),
    [
        ((1.25, 1, 1.25, 1), "base model less"),
        ((1, 1, 1.3, 1.3), "improves it less"),
        ((8, 8, 8, 8), "harder"),
        ((0.05, 0.05, 0.05, 0.05), "easier"),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_an_odd_picture_among_made_ones_is_first(factors, word, seed):
    losses = made(seed)
    for name, factor in zip(CONDITIONS, factors, strict=True):
        losses[name][3] *= factor
    images = _judged([(Path(f"{number}.png"), "") for number in range(14)], losses)
    assert images[0].path == Path("3.png") and any(word in reason for reason in images[0].reasons())


def test_ordinary_pictures_are_not_odd():
    flagged = [len([i for i in _judged([(Path(str(n)), "") for n in range(14)], made(seed)) if i.reasons()]) for seed in range(50)]
    assert np.mean(flagged) < 0.3


def alike(factor: float = 1.0) -> np.ndarray:
    """Eight pictures that differ by a few per cent, at two timesteps."""
    return factor * np.linspace(0.9, 1.1, 8)[:, None] * np.ones((8, 2))


def judged(losses: dict[str, np.ndarray]) -> dict[str, ImageLoss]:
    return {image.path.name: image for image in _judged([(Path(f"{number}"), "") for number in range(8)], losses)}


def test_a_caption_that_helps_more_than_the_others_is_not_odd():
    losses = {"base": alike(), "base, no caption": alike(1.1)}
    losses["base, no caption"][3] *= 3
    found = judged(losses)["3"]
    assert found.scores["caption"] < -ODD and found.reasons() == []


def test_every_part_of_the_timesteps_counts_the_same():
    """Four times the loss at one timestep and a quarter at the other is no change in logarithms."""
    losses = {"base": alike(), "base, no caption": alike()}
    before = judged(losses)["3"].scores["loss"]
    losses["base"][3] *= [4, 0.25]
    assert judged(losses)["3"].scores["loss"] == pytest.approx(before)


@pytest.mark.parametrize("at_once", [1, 3, 8, 20])
def test_each_picture_is_measured_in_the_middle_of_eight_parts_of_the_timesteps(monkeypatch, at_once):
    dataset, seeds = SimpleNamespace(batch_size=at_once), []
    config = SimpleNamespace(dataset=dataset, train=SimpleNamespace(seed=1))
    feed = SimpleNamespace(plan=SimpleNamespace(config=config), repeated=lambda _number, _captioned, own: seeds.extend(own))
    model = SimpleNamespace(schedule=SimpleNamespace(num_timesteps=1000))
    monkeypatch.setattr("trainer.objective.batch_loss", lambda _family, _model, _batch, timesteps: timesteps.double())
    assert _losses(None, model, feed, 0, captioned=True) == [62, 187, 312, 437, 562, 687, 812, 937]
    assert len(set(seeds)) == 8


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> Path:
    """Eight pictures of the demo, one of them with the caption of another picture altogether."""
    folder = tmp_path_factory.mktemp("wrong") / "10_zibu"
    folder.mkdir()
    for number in range(3, 11):
        for file in (dataset_folder() / "10_zibu").glob(f"zibu_{number:02d}.*"):
            shutil.copy(file, folder)
    (folder / "zibu_04.txt").write_text("a big red circle in the night sky", encoding="utf-8")
    return folder.parent


def test_on_the_demo_base_a_wrong_caption_is_named_first(wrong, tmp_path, capsys):
    config = from_dict(
        {
            "base": {"checkpoint": str(base_folder())},
            "dataset": {"folders": [{"path": str(wrong)}], "resolution": 64, "batch_size": 8},
            "train": {"precision": "fp32", "device": "cpu"},
            "save": {"dir": str(tmp_path), "name": "zibu"},
        }
    )
    (tmp_path / "job.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert main(["images", str(tmp_path / "job.yaml"), "--out", str(tmp_path / "result"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(answer["flagged"][0]).name == "zibu_04.png"
    rows = list(csv.DictReader((tmp_path / "result/images.csv").open(encoding="utf-8")))
    assert len(rows) == 8 and rows[0]["picture"].endswith("zibu_04.png") and rows[0]["odd"]
    assert float(rows[0]["score: caption"]) > ODD
    assert Image.open(tmp_path / "result/images.png").size[0] > 256


def test_with_a_lora_each_picture_is_measured_four_times(job, tmp_path):
    """Figures equal those of a model without the LoRA; the LoRA's own are others; nothing is left on the model."""
    from trainer import train

    result = train(job())
    report = measure_images(job(), result.artefact)
    alone = measure_images(job(), None)
    assert report is not None and alone is not None
    assert [set(image.losses) for image in report.images] == [set(CONDITIONS)] * 5
    base = {image.path: image.losses["base"] for image in alone.images}
    assert {image.path: image.losses["base"] for image in report.images} == base
    assert all(image.losses["lora"] != image.losses["base"] for image in report.images)
    assert set(report.images[0].scores) == {"caption", "lora caption", "learned", "loss"}
    assert measure_images(job(), None, stop=lambda: True) is None


def test_regularization_pictures_are_not_measured(job, tmp_path):
    ours, others = tiny.write_pictures(tmp_path / "ours"), tiny.write_pictures(tmp_path / "others")
    folders = [{"path": str(ours)}, {"path": str(others), "regularization": True}]
    report = measure_images(job(dataset={"folders": folders, "resolution": 64}), None)
    assert report is not None and {image.path.parent for image in report.images} == {ours}


@pytest.mark.parametrize(("wrong", "said"), [("--out", "--out: .*taken could not be written"), ("--lora", "LoRA .*nowhere cannot be read")])
def test_what_cannot_be_read_or_written_is_said_before_the_model_loads(job, tmp_path, wrong, said, capsys):
    (tmp_path / "taken").touch()
    (tmp_path / "job.yaml").write_text(to_yaml(job(base={"checkpoint": "missing"})), encoding="utf-8")
    place = tmp_path / {"--out": "taken", "--lora": "nowhere"}[wrong]
    assert main(["images", str(tmp_path / "job.yaml"), wrong, str(place)]) != 0
    assert re.search(said, capsys.readouterr().err)
