"""`check`: it leaves nothing behind but what it remembers of pictures."""

from __future__ import annotations

import json

import pytest

from trainer import check, train
from trainer.checkpoint import existing_artefacts
from trainer.cli import main
from trainer.config import to_yaml
from trainer.data import known


def test_a_check_makes_no_folder_of_a_run(job, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(known, "SETTLED", -1e9)
    (tmp_path / "job.yaml").write_text(to_yaml(job()), encoding="utf-8")
    assert main(["check", str(tmp_path / "job.yaml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == 5
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file() and path.name != "job.yaml"]
    assert [path.parts[:3] for path in left] == [("out", ".lora_furnace_cache", "known")]
    assert not (tmp_path / "out" / "tiny").exists()


def test_where_nothing_is_remembered_a_check_leaves_nothing(job, tmp_path, monkeypatch):
    monkeypatch.setattr(known, "SETTLED", 1e9)
    check(job())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("saves", "files"), [({}, 8), ({"keep_last": 2}, 3), ({"keep_last": 9}, 8)])
def test_files_that_are_given_up_need_no_room(job, saves, files):
    """Seven numbered files and the final one; an older one goes as soon as a newer one is written."""
    assert check(job(train={"steps": 8}, save={"every_steps": 1, **saves})).files == files


def test_so_many_files_lie_there_at_once(job):
    """What `check` says against a run."""
    config, most = job(train={"steps": 5}, save={"every_steps": 1, "keep_last": 2}), 0

    def count(_event):
        nonlocal most
        most = max(most, len(existing_artefacts(config)))

    train(config, listen=count)
    assert most == check(config, resume=True).files
