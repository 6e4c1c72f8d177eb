"""What `python -m trainer grid` makes of its arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cli import _parser, main
from trainer.commands.grid import _plan
from trainer.commands.shared import read_config
from trainer.config import to_yaml
from trainer.errors import ConfigError
from trainer.evaluate.xyz import GridPlan


@pytest.fixture
def plan_of(job, tmp_path: Path):
    """The grid of a configuration whose run has saved nothing; `{a}`, `{b}` and `{style}` stand for LoRA files."""
    (tmp_path / "job.yaml").write_text(to_yaml(job()), encoding="utf-8")
    files = {name: tmp_path / f"{name}.safetensors" for name in ("a", "b", "style")}
    for name, file in files.items():
        file.write_bytes(name.encode())

    def make(*arguments: str) -> GridPlan:
        texts = [text.format(**files) for text in arguments]
        options = _parser().parse_args(["grid", str(tmp_path / "job.yaml"), "--prompt", "a cat", *texts])
        return _plan(read_config(options), options)

    return make


def uses(plan: GridPlan) -> list[list[tuple[str, float]]]:
    return [[(use.file.stem, use.strength) for use in plan.cell(place).loras] for place in plan.places()]


def test_a_lora_axis_tests_its_own_files_beside_the_stack(plan_of):
    arguments = ("--x", "lora={a};{b}", "--with", "{style}:0.5")
    assert uses(plan_of(*arguments)) == [[("a", 1), ("style", 0.5)], [("b", 1), ("style", 0.5)]]
    varied = plan_of(*arguments, "--y", "strength=0.2,1")
    assert uses(varied) == [[(name, strength), ("style", 0.5)] for strength in (0.2, 1) for name in ("a", "b")]


def test_a_file_to_test_comes_before_the_stack(plan_of):
    assert uses(plan_of("--lora", "{a}", "--y", "strength=0.2,1", "--with", "{style}:0.5")) == [
        [("a", 0.2), ("style", 0.5)],
        [("a", 1), ("style", 0.5)],
    ]


@pytest.mark.parametrize("axis", ["strength=0,1", "strength_clip=0,1", "blocks=INS"])
def test_no_axis_changes_a_lora_of_the_stack(plan_of, axis):
    kind = axis.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{kind}: this axis needs a LoRA"):
        plan_of("--y", axis, "--with", "{style}:0.5").check()


def test_other_axes_need_no_lora_but_the_stack(plan_of):
    plan = plan_of("--x", "seed=1,2", "--with", "{style}:0.5")
    assert uses(plan) == [[("style", 0.5)]] * 2
    assert [plan.without(place) for place in plan.places()] == [plan.cell(place) for place in plan.places()]


@pytest.mark.parametrize("arguments", [(), ("--y", "lora"), ("--x", "lora=", "--y", "strength=0,1")])
def test_where_nothing_was_saved_the_folder_is_named(plan_of, arguments, tmp_path):
    with pytest.raises(ConfigError, match=r"--lora: '.*tiny' has no saved file"):
        plan_of(*arguments)


@pytest.mark.parametrize(
    ("wrong", "said"), [(["--out", "taken"], "--out: taken could not be written"), (["--clip", "nowhere"], "clip: nowhere")]
)
def test_what_cannot_be_measured_or_written_is_said_before_a_picture_is_drawn(job, tmp_path, monkeypatch, wrong, said, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("taken", "a.safetensors"):
        Path(name).touch()
    Path("job.yaml").write_text(to_yaml(job(base={"checkpoint": "missing"})), encoding="utf-8")
    assert main(["grid", "job.yaml", "--lora", "a.safetensors", "--prompt", "a cat", *wrong]) != 0
    assert said in capsys.readouterr().err and not Path("out").exists()
