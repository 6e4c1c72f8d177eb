"""The command line as a command for a new process or a terminal."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from trainer.program import trainer_command, typed
from trainer.queue.runner import training

ROOT = Path(__file__).parents[1]


def isolated(parts: list[str], folder: Path, **options) -> subprocess.CompletedProcess[str]:
    """Run it with -I: like an embedded Python, it then looks neither into the current folder nor into PYTHONPATH."""
    return subprocess.run([parts[0], "-I", *parts[1:]], cwd=folder, capture_output=True, text=True, check=False, **options)


def test_it_runs_in_an_isolated_python(tmp_path):
    shown = isolated(trainer_command("queue", str(tmp_path), "--status"), tmp_path)
    assert shown.returncode == 0, shown.stderr
    help = isolated(trainer_command("--help"), tmp_path)
    assert help.stdout.startswith("usage: lora-furnace")


def test_the_process_of_a_job_runs_there_too(tmp_path):
    done = isolated(training(tmp_path / "missing.yaml"), tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "missing.yaml" in done.stderr


def test_the_package_may_lie_in_a_folder_with_spaces(tmp_path):
    pack = tmp_path / "a folder, 图片"
    shutil.copytree(ROOT / "trainer", pack / "trainer", ignore=shutil.ignore_patterns("demo", "__pycache__"))
    start, code, _, *rest = trainer_command("--help")[1:]
    found = isolated([trainer_command()[0], start, code, str(pack), *rest], tmp_path)
    assert found.stdout.startswith("usage: lora-furnace")


def test_a_line_for_a_terminal():
    parts = trainer_command("queue", "/a folder/it's")
    assert shlex.split(typed(parts, windows=False)) == parts
    line = typed([r"C:\ComfyUI\python.exe", "-c", "import sys; f()", r"D:\my nodes\pack", "queue", r"D:\R&D\queue"], windows=True)
    assert line == r'C:\ComfyUI\python.exe -c "import sys; f()" "D:\my nodes\pack" queue "D:\R&D\queue"'
