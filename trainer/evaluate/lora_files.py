"""Which LoRA files a text means: one file, a pattern, or a run with everything it has saved."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ModelFileError
from ..files import from_home
from ..log import LOG_FILE, history


def find_loras(text: str) -> list[Path]:
    """A file; the files of a pattern such as out/cat*.safetensors; or of a folder, a run's folder in the order in which it saved them.

    ModelFileError where there is none.
    """
    path = from_home(text)
    if path.is_dir():
        found = run_files(path) or sorted(path.glob("*.safetensors"), key=training_order)
    elif any(mark in text for mark in "*?[") and not path.exists():
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))), key=training_order)
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise ModelFileError(
            f"lora: there is no LoRA file {text!r}; give a file, a pattern such as out/cat*.safetensors, or a run's folder"
        )
    return found


def run_files(folder: Path) -> list[Path]:
    """The files that a run has saved and that are still there, oldest first."""
    return [file for file in history(folder / LOG_FILE).files if file.is_file()]


def training_order(file: Path) -> tuple[str, int, float]:
    """Sorts name-000002 before name-000010, steps after epochs, and the final file, which has no number, last."""
    name, step, number = split_name(file)
    return name, 1 if step else 0, float("inf") if number is None else number


def split_name(file: Path) -> tuple[str, bool, int | None]:
    """Name of the run, whether its number counts steps, and the number: of the epoch, the step, or none."""
    match = re.fullmatch(r"(.*?)-(step)?(\d+)", file.stem)
    return (match[1], bool(match[2]), int(match[3])) if match else (file.stem, False, None)
