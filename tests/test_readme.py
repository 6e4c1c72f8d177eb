"""What the README says is true of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from trainer.cli import main
from trainer.config import from_dict
from trainer.reference import reference

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings the same library under this name
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_is_current():
    found = re.search(r"<!-- settings: .*? -->\n(.*?)\n<!-- end of settings -->", README, re.S)
    assert found and found[1] == reference(), "insert the output of `python -m trainer.reference`"


def test_every_yaml_example_is_a_valid_configuration():
    examples = re.findall(r"^( *)```yaml\n(.*?)^ *```", README, re.S | re.M)
    assert len(examples) == 2
    for _, text in examples:
        from_dict(yaml.safe_load(text))


def test_the_complete_example_shows_the_defaults():
    text = re.findall(r"^```yaml\n(.*?)^```", README, re.S | re.M)[0]
    shown = from_dict(yaml.safe_load(text))
    plain = from_dict({"base": {"checkpoint": "sd15.safetensors"}, "dataset": {"folders": [{"path": "pictures"}]}})
    assert shown == plain


@pytest.mark.parametrize("command", ["presets vram_8", "import tests/kohya"])
def test_what_a_command_prints_is_shown_as_it_is(command, tmp_path, monkeypatch, capsys):
    """Of commands that need no model; … stands for lines left out."""
    (shown,) = re.findall(rf"^\$ python -m trainer ({command}.*)\n((?:(?!```|\$ ).*\n)+)", README, re.M)
    arguments, text = [word.replace("tests/", f"{ROOT}/tests/") for word in shown[0].split()], shown[1]
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 0
    printed = "".join(capsys.readouterr()).splitlines()
    lines = [line for line in text.splitlines() if line.strip() != "…"]
    assert len(lines) > 5 and not [line for line in lines if line not in printed]


def test_every_path_in_the_file_map_exists():
    block = README.split("## File map")[1].split("```")[1]
    folder, missing, seen = Path(), [], 0
    for line in block.strip().splitlines():
        names = re.match(r"( *)((?:[\w./]+ )*[\w./]+)(?:  |$)", line)
        assert names, line
        for name in names[2].split():
            base = ROOT / folder if names[1] else ROOT
            seen += 1
            missing += [] if (base / name).exists() else [str(base / name)]
        if not names[1]:
            folder = Path(names[2].split()[0])
    assert seen > 20 and not missing


def test_requirements_txt_agrees_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split("\n")
    assert [line for line in required if line] == project["dependencies"]


def test_no_dependency_has_an_upper_bound():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    everything = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    assert len(everything) > 15
    # Behind a semicolon stands where it is needed, such as python_version < "3.11".
    assert not [item for item in everything if any(sign in item.partition(";")[0] for sign in ("<", "==", "~=", "!="))]
