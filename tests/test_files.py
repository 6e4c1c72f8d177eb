from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import artefact_names, artefact_path
from trainer.errors import OutputError
from trainer.files import clear_leftovers, free_bytes, from_home, replacing, require_writable, write_bytes, write_text


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    write_text(path, "first ä")
    write_text(path, "second")
    assert content(path.parent) == {"a.txt": b"second"}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), RuntimeError("shape mismatch"), SystemExit(1)])
def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_bytes(b"half of the n")
        assert path.read_bytes() == b"old"
        raise error
    assert content(tmp_path) == {"a.bin": b"old"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_late_leaves_the_old_file_alone(tmp_path, monkeypatch, call, code):
    def fail(*_arguments):
        raise OSError(code, os.strerror(code))

    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    words = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk is full", errno.EROFS: "no permission"}.get(code, os.strerror(code))
    with pytest.raises(OutputError, match=words) as caught:
        write_bytes(path, b"new")
    assert str(path) in str(caught.value)
    assert content(tmp_path) == {"a.bin": b"old"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("writer", ["bytes", "torch", "picture"])
def test_a_disk_that_is_really_full_is_reported_in_words(tmp_path, writer):
    """/dev/full answers every write as a full disk does; here the temporary file leads to it."""
    from PIL import Image

    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(OutputError, match="the disk is full"), replacing(path) as temporary:
        temporary.symlink_to("/dev/full")
        if writer == "bytes":
            temporary.write_bytes(b"new")
        elif writer == "torch":
            with temporary.open("wb") as file:
                torch.save({"a": torch.zeros(10_000)}, file)
        else:
            Image.new("RGB", (64, 64)).save(temporary, format="png")
    assert content(tmp_path) == {"a.bin": b"old"}


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"save\.dir: .*file"):
        require_writable(tmp_path / "file" / "out", "save.dir")
    with pytest.raises(OutputError, match="could not be written"):
        write_text(tmp_path / "file" / "out" / "a.txt", "x")


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError, match=r"save\.dir: .* no permission; choose another folder"):
        require_writable(tmp_path, "save.dir")


def test_the_probe_of_a_writable_folder_is_gone(tmp_path):
    require_writable(tmp_path / "new", "save.dir")
    assert (tmp_path / "new").is_dir() and content(tmp_path / "new") == {}


def test_a_folder_that_shall_not_be_made_is_not(tmp_path):
    require_writable(tmp_path / "new" / "deep", "save.dir", make=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"save\.dir: .*file"):
        require_writable(tmp_path / "file" / "out", "save.dir", make=False)


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "not" / "there") == pytest.approx(free_bytes(tmp_path), rel=0.2)
    assert free_bytes(tmp_path) > 0


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(job, tmp_path):
    end = "0a" * 16 + ".tmp"
    ours = [f".cat-000001.safetensors.{end}", f".cat.safetensors.{end}", f".cat-step00000007.safetensors.{end}"]
    others = [f".cat2.safetensors.{end}", f".cat-000001-b.safetensors.{end}", "cat.safetensors", ".cat.txt", "cat.tmp", ".cat.tmp"]
    for name in ours + others:
        (tmp_path / name).write_bytes(b"x")
    names = artefact_names(job(save={"name": "cat"}))
    clear_leftovers(tmp_path, names)
    assert set(content(tmp_path)) == set(others)
    clear_leftovers(tmp_path)
    assert set(content(tmp_path)) == {"cat.safetensors", ".cat.txt", "cat.tmp", ".cat.tmp"}


def test_a_long_name_is_cut_short_in_its_leftovers(job, tmp_path):
    config = job(save={"name": "很长的名字" * 7})
    path = tmp_path / artefact_path(config, epoch=3).name
    with contextlib.suppress(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"x")
        temporary.rename(left := temporary.with_suffix(".kept"))
        raise KeyboardInterrupt
    left.rename(temporary)
    clear_leftovers(tmp_path, artefact_names(config))
    assert list(tmp_path.iterdir()) == []


def test_a_home_folder_that_is_not_known_stays_as_it_is_written(monkeypatch):
    monkeypatch.setenv("HOME", "/home/her")
    assert from_home("a/~") == Path("a/~")
    assert os.name != "posix" or from_home("~/a") == Path("/home/her/a")
    assert from_home("~no_such_user/a") == Path("~no_such_user/a") or os.name != "posix"
