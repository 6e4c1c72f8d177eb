"""`python -m trainer loss` on a real run."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from trainer import train
from trainer.cli import main
from trainer.config import to_yaml


def test_a_run_folder_and_its_configuration_tell_the_same(job, tmp_path, capsys):
    config = job(validate={"split": 0.2, "every_epochs": None, "every_steps": 2})
    result = train(config)
    (tmp_path / "job.yaml").write_text(to_yaml(config), encoding="utf-8")
    answers = []
    for given in (result.run_dir, tmp_path / "job.yaml"):
        assert main(["loss", str(given), "--png", str(tmp_path / "loss.png"), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert answers[0] == answers[1]
    assert answers[0]["verdict"] == "too short" and answers[0]["steps"] == 4
    assert answers[0]["mean"] == pytest.approx(sum(result.losses) / 4)
    assert answers[0]["validation_first"] == result.validation[0][1] and result.validation[0][0] == 0
    assert Image.open(tmp_path / "loss.png").size[0] > 500


def test_a_folder_without_a_run(tmp_path, capsys):
    assert main(["loss", str(tmp_path)]) == 2
    assert "log.jsonl" in capsys.readouterr().err
