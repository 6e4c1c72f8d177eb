"""`python -m trainer loss` on a real run."""

from __future__ import annotations

import json
import math
import re

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


def strict(text: str) -> dict:
    """Of a reader that knows no NaN, as JSON has none."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("steps", "broken", "verdict"), [(0, 1, "not finite"), (1, 0, "too short"), (4, 0, "too short"), (40, 1, "not finite")]
)
def test_numbers_that_a_run_does_not_have_are_null(tmp_path, capsys, steps, broken, verdict):
    events = [{"event": "StepDone", "step": step, "total": 50, "loss": 0.5, "lr": {"unet": 1e-4}} for step in range(1, steps + 1)]
    events += [{"event": "LossNotFinite", "step": steps + 1}] * broken
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(event) for event in events), encoding="utf-8")
    assert main(["loss", str(tmp_path), "--json"]) == 0
    answer = strict(capsys.readouterr().out.splitlines()[-1])
    assert answer["verdict"] == verdict and answer["level"] is None
    assert (answer["mean"] is None) == (steps < 2)


def test_numbers_deep_in_an_answer_are_finite_or_null(tmp_path, capsys, monkeypatch):
    from trainer.commands import loss

    monkeypatch.setattr(loss, "run", lambda _: {"a": [(1.5, math.inf)], "b": {"c": -math.inf, "d": math.nan}, "e": "NaN", "f": 2**64})
    assert main(["loss", str(tmp_path), "--json"]) == 0
    assert strict(capsys.readouterr().out) == {"a": [[1.5, None]], "b": {"c": None, "d": None}, "e": "NaN", "f": 2**64}


def test_a_folder_without_a_run(tmp_path, capsys):
    assert main(["loss", str(tmp_path)]) == 2
    assert "log.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("picture", "said", "code"), [("curve.txt", "--png: .* ends in '.txt'", 2), ("log.jsonl/a.png", "--png: .*a file", 1)]
)
def test_a_place_that_cannot_be_drawn_at_is_said_first(tmp_path, picture, said, code, capsys):
    (tmp_path / "log.jsonl").write_text(json.dumps({"event": "StepDone", "step": 1, "total": 5, "loss": 0.5, "lr": {}}), encoding="utf-8")
    assert main(["loss", str(tmp_path), "--png", str(tmp_path / picture)]) == code
    shown = capsys.readouterr()
    assert re.search(said, shown.err) and shown.out == "" and [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
