"""What every command has in common: exit codes, and `--json`'s last line."""

import json

import pytest

from trainer.cli import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--json"], "config"),
        (["train", "a.yaml", "--seed", "3", "--json"], "--seed 3"),
        (["trian", "--json"], "trian"),
        (["bench", "--steps", "many", "--json"], "many"),
    ],
)
def test_wrong_arguments_are_bad_input_and_answered_in_json(arguments, said, capsys):
    assert main(arguments) == 2

    out, err = capsys.readouterr()
    answer = json.loads(out.splitlines()[-1])
    assert (answer["status"], answer["kind"]) == ("failed", "ConfigError")
    assert said in answer["error"] and said in err
    assert "usage:" in err


def test_without_json_wrong_arguments_leave_standard_output_empty(capsys):
    assert main(["train"]) == 2

    out, err = capsys.readouterr()
    assert out == "" and "error: the following arguments are required: config" in err


def test_an_argument_is_known_by_its_whole_name_only(capsys):
    assert main(["check", "a.yaml", "--js"]) == 2  # else a script's short form changes its meaning with the next new argument

    assert "--js" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting",
    ["dataset.folders.0.path", "dataset.folders.0.masks", "base.checkpoint", "validate.folder", "method.continue_from"],
)
def test_a_path_in_the_home_of_nobody_is_named_like_any_that_is_missing(tmp_path, setting, capsys):
    config = {"base": {"checkpoint": str(tmp_path)}, "dataset": {"folders": [{"path": str(tmp_path)}]}}
    (tmp_path / "job.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["check", str(tmp_path / "job.json"), "--set", f"{setting}=~no_such_user/a"]) == 2
    assert "~no_such_user/a" in capsys.readouterr().err


def test_a_defect_is_answered_in_json_too(monkeypatch, capsys):
    monkeypatch.setattr("trainer.commands.presets.run", lambda options: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        main(["presets", "--json"])

    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "status": "failed",
        "kind": "ZeroDivisionError",
        "error": "division by zero",
    }
