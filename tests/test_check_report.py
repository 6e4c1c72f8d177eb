"""`check`: it leaves nothing behind but what it remembers of pictures."""

from __future__ import annotations

import json

from trainer import check
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
