"""Facts about files: found out once, again after any change of the file, and never wrong."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from PIL import Image

from trainer.config import DatasetSection
from trainer.data import images, known
from trainer.data.images import DamagedPicture, look, look_at_mask
from trainer.data.known import KnownFiles
from trainer.data.records import scan


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once."""
    monkeypatch.setattr(known, "SETTLED", -1e9)


class Looker:
    """Reads a file's text, and counts how often."""

    def __init__(self):
        self.looks = 0

    def __call__(self, path):
        self.looks += 1
        return [path.read_text()]


def ask(memory, path, looker):
    files = KnownFiles(memory)
    found = list(files.facts(path, "texts", looker))
    files.save()
    return found


def test_a_later_run_looks_only_at_what_changed(tmp_path, settled):
    memory, path, looker = tmp_path / "memory", tmp_path / "a", Looker()
    path.write_text("one")
    assert [ask(memory, path, looker) for _ in range(3)] == [["one"]] * 3
    assert looker.looks == 1
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # same length, same time of writing
    assert ask(memory, path, looker) == ["two"]
    assert looker.looks == 2


def test_a_file_that_was_just_written_is_not_remembered(tmp_path):
    """It could be written again without a new time: disks count times in steps."""
    path, looker = tmp_path / "a", Looker()
    path.write_text("one")
    assert [ask(tmp_path / "memory", path, looker) for _ in range(2)] == [["one"]] * 2
    assert looker.looks == 2
    assert not (tmp_path / "memory").exists()


def test_what_is_gone_is_forgotten_and_the_others_stay(tmp_path, settled):
    memory = tmp_path / "memory"
    for name in "ab":
        (tmp_path / name).write_text(name)
        ask(memory, tmp_path / name, Looker())
    (tmp_path / "a").unlink()
    (tmp_path / "c").write_text("c")
    ask(memory, tmp_path / "c", Looker())
    (file,) = memory.iterdir()
    assert sorted(json.loads(file.read_text())["files"]) == ["b", "c"]


@pytest.mark.parametrize("damage", ["", "[]", '{"made": 1}', "other pillow"])
def test_a_memory_that_is_damaged_or_from_another_version_is_not_believed(tmp_path, settled, monkeypatch, damage):
    memory, path, looker = tmp_path / "memory", tmp_path / "a", Looker()
    path.write_text("one")
    ask(memory, path, looker)
    if damage == "other pillow":
        monkeypatch.setattr(known.PIL, "__version__", "0.1")
    else:
        next(memory.iterdir()).write_text(damage)
    assert ask(memory, path, looker) == ["one"]
    assert looker.looks == 2


def test_errors_are_not_remembered_and_no_memory_is_no_error(tmp_path, settled):
    path = tmp_path / "a.png"
    files = KnownFiles(tmp_path / "memory")
    with pytest.raises(DamagedPicture, match="No such file"):
        files.facts(path, "pictures", look)
    path.write_bytes(b"nothing")
    with pytest.raises(DamagedPicture):
        files.facts(path, "pictures", look)
    files.save()
    Image.new("RGB", (3, 2)).save(path)
    assert files.facts(path, "pictures", look)[:2] == (3, 2)
    (tmp_path / "memory").write_text("a file in the way")
    files.save()
    assert KnownFiles(None).facts(path, "pictures", look)[:2] == (3, 2)


def test_what_is_seen_in_a_picture_and_in_a_mask(tmp_path):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGBA", (3, 2)).save(path, exif=exif)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert look(path) == (2, 3, True, digest)
    assert look_at_mask(path) == (2, 3, False, digest)
    Image.new("L", (3, 2), 1).save(path)
    assert look(path)[2] is False
    assert look_at_mask(path)[2] is True


def test_a_scan_from_memory_is_the_scan_and_decodes_nothing(tmp_path, settled, monkeypatch):
    folder, masks = tmp_path / "pictures", tmp_path / "masks"
    folder.mkdir()
    masks.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (80, 64), "red").save(folder / "a.jpg", exif=turned)
    Image.new("RGBA", (64, 64), "blue").save(folder / "b.png")
    Image.new("RGB", (64, 64), "blue").save(folder / "c.png")
    Image.new("L", (64, 64), 0).save(masks / "c.png")
    (folder / "a.txt").write_text("a")
    config = DatasetSection(folders=({"path": str(folder), "masks": str(masks), "class_words": "x"},), resolution=64, alpha_mask=True)
    plain = scan(config)
    first = scan(config, memory=tmp_path / "memory")
    monkeypatch.setattr(images, "verify", None)
    monkeypatch.setattr(images, "open_mask", None)
    again = scan(config, memory=tmp_path / "memory")
    assert plain == first == again
    assert [(record.width, record.height) for record in again.records] == [(64, 80), (64, 64), (64, 64)]
    assert [(record.mask.alpha, record.mask.path) for record in again.records] == [(False, None), (True, None), (False, masks / "c.png")]
    assert [record.mask.digest for record in again.records] == [None, None, hashlib.sha256((masks / "c.png").read_bytes()).hexdigest()]
    assert [text for text in again.warnings if "black everywhere" in text]
