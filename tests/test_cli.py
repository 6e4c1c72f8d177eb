"""What every command has in common: exit codes, and `--json`'s last line."""

import json
import signal

import pytest

from trainer.cli import main
from trainer.commands.shared import Interrupt


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


def test_a_stop_promises_only_what_holds_for_every_command(capsys):
    with Interrupt() as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop() and capsys.readouterr().err == "stopping after this step (Ctrl-C again: at once)\n"


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--warmup", "-1"], ["--steps", "1", "--warmup", "0"], ["--rank", "0"]])
def test_a_bench_that_cannot_be_begins_nothing(tmp_path, wrong, monkeypatch, capsys):
    monkeypatch.setattr("trainer.bench_files.random_checkpoint", lambda *_: pytest.fail("made a checkpoint"))
    assert main(["bench", *wrong, "--out", str(tmp_path / "bench")]) == 2
    assert wrong[0].removeprefix("--") in capsys.readouterr().err and not (tmp_path / "bench").exists()


@pytest.mark.parametrize("command", ["info", "blocks", "dylora-split"])
def test_a_folder_in_the_place_of_a_lora_is_called_one(tmp_path, command, capsys):
    assert main([command, str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder; give a .safetensors" in capsys.readouterr().err
