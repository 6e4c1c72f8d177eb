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


def test_a_defect_is_answered_in_json_too(monkeypatch, capsys):
    monkeypatch.setattr("trainer.commands.presets.run", lambda options: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        main(["presets", "--json"])

    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "status": "failed",
        "kind": "ZeroDivisionError",
        "error": "division by zero",
    }
