"""Dataset folders are names below ComfyUI's own folders, never paths."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from loaded_pack import Pack
from tiny import write_pictures


def test_folders_with_pictures_are_listed(pack: Pack) -> None:
    base = pack.comfy.base
    write_pictures(base / "input/dogs/10_sks dog", count=1)
    write_pictures(base / "datasets/birds", count=1)
    (base / "input/empty").mkdir()
    folders = pack.node("Dataset").INPUT_TYPES()["required"]["folder"][0]
    assert folders == ["datasets/birds", "input/cat", "input/dogs", "input/dogs/10_sks dog"]


def test_section(pack: Pack) -> None:
    dataset = pack.call("Dataset", folder="input/cat", width=64, height=96, repeats=3, buckets=False, shuffle_tags=True)[0]
    assert dataset.folders[0].path == str(pack.comfy.base / "input/cat")
    assert (dataset.resolution, dataset.folders[0].repeats) == ((64, 96), 3)
    assert dataset.captions.shuffle and not dataset.buckets.enabled


def test_two_datasets(pack: Pack) -> None:
    write_pictures(pack.comfy.base / "input/dog", count=1)
    first = pack.call("Dataset", folder="input/dog")[0]
    both = pack.call("Dataset", folder="input/cat", also=first)[0]
    assert [folder.path.rsplit("/", 1)[1] for folder in both.folders] == ["dog", "cat"]


@pytest.mark.parametrize("name", ["input/../models", "input/", "elsewhere/cat", "input/missing", "/etc"])
def test_only_below_the_roots(pack: Pack, name: str) -> None:
    with pytest.raises(ValueError, match="is not a folder below"):
        pack.call("Dataset", folder=name)


def test_link_out_of_the_root_is_refused(pack: Pack) -> None:
    write_pictures(pack.comfy.base / "private", count=1)
    (pack.comfy.base / "input/link").symlink_to(pack.comfy.base / "private", target_is_directory=True)
    with pytest.raises(ValueError, match="is not a folder below"):
        pack.call("Dataset", folder="input/link")


def test_edited_caption_is_noticed(pack: Pack) -> None:
    node = pack.node("Dataset")
    before = node.IS_CHANGED(folder="input/cat")
    assert node.IS_CHANGED(folder="input/cat", width=512) == before
    (pack.comfy.base / "input/cat/00.txt").write_text("another text")
    assert node.IS_CHANGED(folder="input/cat") != before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not UTF-8")
def test_a_name_that_is_not_utf8_is_noticed(pack: Pack) -> None:
    node = pack.node("Dataset")
    before = node.IS_CHANGED(folder="input/cat")
    (pack.comfy.base / "input/cat" / os.fsdecode(b"M\xfcller.txt")).write_text("text")
    assert node.IS_CHANGED(folder="input/cat") != before


def test_no_pictures_yet(pack: Pack) -> None:
    for file in (pack.comfy.base / "input/cat").iterdir():
        file.unlink()
    (choice,) = pack.node("Dataset").INPUT_TYPES()["required"]["folder"][0]
    assert pack.node("Dataset").IS_CHANGED(folder=choice) == ""
    with pytest.raises(ValueError, match="put a folder of pictures into"):
        pack.call("Dataset", folder=choice)


def test_captions_are_added_to_those_of_the_dataset(pack: Pack) -> None:
    dataset = pack.call("Dataset", folder="input/cat", shuffle_tags=True, keep_tokens=2)[0]
    changed = pack.call("Captions", dataset=dataset, prefix="sks,", dropout=0.1, dropout_every_epochs=0)[0]
    assert (changed.captions.shuffle, changed.captions.keep_tokens) == (True, 2)
    assert (changed.captions.prefix, changed.captions.dropout, changed.captions.dropout_every_epochs) == ("sks,", 0.1, None)
    assert changed.model_copy(update={"captions": dataset.captions}) == dataset
    assert pack.call("Captions", dataset=dataset)[0] == dataset


def test_augmentation(pack: Pack) -> None:
    dataset = pack.call("Dataset", folder="input/cat")[0]
    changed = pack.call("Augmentation", dataset=dataset, flip=True, rotate=5.0)[0]
    assert (changed.augment.flip, changed.augment.rotate, changed.augment.color) == (True, 5, 0)
    assert changed.model_copy(update={"augment": dataset.augment}) == dataset
    assert pack.call("Augmentation", dataset=dataset)[0] == dataset


def test_masks_count_for_folders_that_have_none(pack: Pack) -> None:
    base = pack.comfy.base
    for name in ("dog", "masks", "other masks"):
        write_pictures(base / "input" / name, count=1)
    dog = pack.call("Masks", dataset=pack.call("Dataset", folder="input/dog")[0], masks="input/masks")[0]
    both = pack.call("Dataset", folder="input/cat", also=dog)[0]
    both = pack.call("Regularization", dataset=both, folder="input/dog")[0]
    masked = pack.call("Masks", dataset=both, masks="input/other masks", alpha_mask=True)[0]
    assert [folder.masks for folder in masked.folders] == [str(base / "input/masks"), str(base / "input/other masks"), None]
    assert masked.alpha_mask and not dog.alpha_mask
    assert pack.call("Masks", dataset=both)[0] == both
    node = pack.node("Masks")
    before = node.IS_CHANGED(masks="input/masks")
    (base / "input/masks/00.png").write_bytes(b"another")
    assert node.IS_CHANGED(masks="input/masks") != before and node.IS_CHANGED() == ""
    with pytest.raises(ValueError, match="is not a folder below"):
        pack.call("Masks", dataset=both, masks="../secret")


def test_a_folder_that_counts_twice_stays_twice(pack: Pack) -> None:
    cat = pack.call("Dataset", folder="input/cat")[0]
    twice = pack.call("Dataset", folder="input/cat", also=cat)[0]
    once, both = (pack.call("Masks", dataset=given, masks="input/cat")[0].folders for given in (cat, twice))
    assert both == once * 2


def test_regularization_folder_is_added(pack: Pack) -> None:
    write_pictures(pack.comfy.base / "input/classes", count=1)
    dataset = pack.call("Dataset", folder="input/cat")[0]
    changed = pack.call("Regularization", dataset=dataset, folder="input/classes", class_words="a cat", repeats=2)[0]
    assert changed.folders[0] == dataset.folders[0]
    added = changed.folders[1]
    assert (added.path, added.regularization, added.class_words) == (str(pack.comfy.base / "input/classes"), True, "a cat")
    assert added.repeats == 2


def test_drawn_class_pictures_are_added_and_drawn_once(pack: Pack) -> None:
    dataset = pack.call("Dataset", folder="input/cat")[0]
    given = {"dataset": dataset, "base": pack.base(), "prompts": "a cat", "count": 2, "folder_name": "cats", "node_id": "4"}
    given |= {"width": 64, "height": 64, "steps": 1, "cfg": 1.0, "precision": "fp32", "device": "cpu"}
    changed = pack.call("DrawRegularization", **given)[0]
    folder = Path(changed.folders[1].path)
    assert changed.folders[0] == dataset.folders[0] and changed.folders[1].regularization
    assert folder.parent == pack.comfy.base / "output/lora_furnace/regularization/cats"
    assert sorted(path.suffix for path in folder.iterdir()) == [".png", ".png", ".txt", ".txt"]
    stamp = pack.node("DrawRegularization").IS_CHANGED(folder_name="cats")
    assert pack.call("DrawRegularization", **given)[0] == changed
    assert pack.node("DrawRegularization").IS_CHANGED(folder_name="cats") == stamp
    next(folder.glob("*.png")).unlink()
    assert pack.node("DrawRegularization").IS_CHANGED(folder_name="cats") != stamp


@pytest.mark.parametrize("change", [{"prompts": "a dog"}, {"seed": 7}, {"width": 72}, {"cfg": 2.0}, {"count": 1}])
def test_pictures_of_another_request_are_not_trained_on(pack: Pack, change: dict[str, Any]) -> None:
    dataset = pack.call("Dataset", folder="input/cat", width=64, height=64)[0]
    given = {"dataset": dataset, "base": pack.base(), "prompts": "a cat", "count": 2, "width": 64, "height": 64, "steps": 1}
    given |= {"seed": 1, "cfg": 1.0, "precision": "fp32", "device": "cpu"}
    pack.call("DrawRegularization", **given)
    changed = given | change
    trained = pack.part("trainer.data.records").scan(pack.call("DrawRegularization", **changed)[0]).records
    drawn = [record.caption for record in trained if record.regularization]
    assert drawn == [changed["prompts"]] * changed["count"]
