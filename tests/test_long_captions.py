"""Captions of several chunks, and with emphasis, through whole trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from PIL import Image
from safetensors import safe_open

from trainer import check, train


def one_picture(folder: Path, caption: str) -> Path:
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), (200, 60, 20)).save(folder / "a.png")
    (folder / "a.txt").write_text(caption, encoding="utf-8")
    return folder


def job(base: Path, folder: Path, caption: str, captions: dict, **method):
    """One step on one picture with this caption."""
    number = len(list(folder.iterdir()))
    dataset = {
        "folders": [{"path": str(one_picture(folder / str(number), caption))}],
        "resolution": 64,
        "captions": captions,
        "cache": {"dir": str(folder / "cache")},
    }
    train_section = {"steps": 1, "precision": "fp32", "device": "cpu"}
    return tiny.job(base, folder, folder, dataset=dataset, train=train_section, save={"name": f"run{number}"}, method={"rank": 2, **method})


def first_loss(*given, **method) -> float:
    (loss,) = train(job(*given, **method)).losses
    return loss


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> Path:
    return tiny.write_base(tmp_path_factory.mktemp("sdxl") / "base", family="sdxl")


CASES = pytest.mark.parametrize(("family", "trained"), [("sd15", False), ("sdxl", True)], ids=["sd15 cached", "sdxl trained"])


@CASES
def test_what_stands_in_a_chunk_counts_where_so_many_are_read(base, sdxl, tmp_path, family, trained):
    """Texts that differ in their second and in their third chunk only; the toy tokenizer spells letter by letter."""
    model = base if family == "sd15" else sdxl
    text, second, third = ("x" * 75 + middle * 75 + end * 70 for middle, end in ("ac", "bc", "ad"))

    def loss(caption: str, tokens: int) -> float:
        return first_loss(model, tmp_path, caption, {"max_tokens": tokens}, train_text_encoder=trained)

    losses = [loss(text, tokens) for tokens in (75, 150, 225)]
    assert len(set(losses)) == 3, "a longer reading of the same text is another condition"
    assert loss(second, 75) == losses[0]
    assert loss(third, 150) == losses[1] != loss(second, 150)
    assert loss(third, 225) != losses[2]


def test_a_short_caption_is_the_same_at_every_length(base, tmp_path):
    assert len({first_loss(base, tmp_path, "a cat", {"max_tokens": tokens}, train_text_encoder=False) for tokens in (75, 225)}) == 1


def test_the_report_and_the_metadata_know_the_length(base, tmp_path):
    long = "y" * 160
    for tokens, over in ((150, 1), (225, 0)):
        assert len(check(job(base, tmp_path, long, {"max_tokens": tokens})).dataset.over_limit) == over
    config = job(base, tmp_path, long, {"max_tokens": 225, "weighted": True})
    with safe_open(train(config).artefact, "pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_max_token_length"], metadata["ss_weighted_captions"]) == ("225", "True")


@CASES
def test_emphasis_acts_where_it_is_read_and_is_spelling_elsewhere(base, sdxl, tmp_path, family, trained):
    model = base if family == "sd15" else sdxl

    def loss(text: str, weighted: bool) -> float:
        return first_loss(model, tmp_path, text, {"weighted": weighted}, train_text_encoder=trained)

    plain = loss("a red cat", False)
    assert loss("a (red:1.0) cat", True) == plain
    emphasised = {loss(f"a {red} cat", True) for red in ("(red:1.5)", "(red)")}
    assert len(emphasised) == 2 and plain not in emphasised
    assert loss("a (red:1.5) cat", False) not in {plain, *emphasised}


def test_captions_of_unequal_length_meet_their_own_dropout(base, tmp_path):
    """One caption of a chunk with emphasis and one of three, as a batch and one after the other."""
    folder = one_picture(tmp_path / "both", "a (red:1.5) cat")
    Image.new("RGB", (64, 64), (20, 60, 200)).save(folder / "b.png")
    (folder / "b.txt").write_text("z" * 200, encoding="utf-8")
    losses = []
    for size in (2, 1):
        config = tiny.job(
            base,
            folder,
            tmp_path,
            dataset={"captions": {"max_tokens": 225, "weighted": True}, "batch_size": 2},
            method={"rank": 2, "train_unet": False, "dropout": 0.3, "rank_dropout": 0.3, "module_dropout": 0.3},
            optimizer={"kind": "sgd", "lr": 0.5},
            memory={"micro_batch": size},
            save={"name": f"by {size}"},
        )
        losses.append(train(config).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
