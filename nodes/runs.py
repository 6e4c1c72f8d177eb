"""Names of runs: one that is taken is never reused for something else, and equal jobs are not done twice."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from ..trainer import TrainConfig, TrainResult
from ..trainer.files import write_text
from .fingerprint import fingerprint

RECORD = "comfyui.json"


@dataclass(frozen=True)
class Run:
    """Where a job goes. `result` is there when it was done before; `resume` when it was stopped half-way."""

    config: TrainConfig
    mark: str
    resume: bool = False
    result: TrainResult | None = None

    def remember(self, result: TrainResult | None = None) -> None:
        """Note in the run's folder that the job can be resumed or, with a result, that it is done."""
        value = {"mark": self.mark, "result": asdict(result) if result and result.status == "done" else None}
        write_text(Path(str(self.config.save.run_dir)) / RECORD, json.dumps(value, default=str))


def find_run(config: TrainConfig, lora_folder: Path, run_folder: Path) -> Run:
    """The job under its own name if that is free or was this very job, else under name_2, name_3 …"""
    mark = _mark(config)
    for number in itertools.count(1):
        name = config.save.name if number == 1 else f"{config.save.name}_{number}"
        folder = run_folder / name
        save = config.save.model_copy(update={"name": name, "dir": str(lora_folder), "run_dir": str(folder)})
        placed = config.model_copy(update={"save": save})
        known = _read(folder / RECORD)
        if known and known["mark"] == mark:
            result = _result(known["result"]) if known["result"] else None
            if result is None:
                return Run(placed, mark, resume=True)
            if all(file.is_file() for file in result.files):
                return Run(placed, mark, result=result)
        elif known is None and not _artefacts(lora_folder, name):
            return Run(placed, mark)
    raise AssertionError("unreachable")


def _mark(config: TrainConfig) -> str:
    """Changes with every setting and every file of the job, not with its name."""
    values = config.model_copy(update={"save": config.save.model_copy(update={"name": "-", "dir": "-", "run_dir": None})}).as_dict()
    values["dataset"]["cache"]["dir"] = None
    folders = [path for folder in config.dataset.folders for path in (folder.path, folder.masks)]
    loras = [config.method.continue_from, *(lora.file for lora in config.base.loras)]
    paths = [config.base.checkpoint, config.base.vae, config.validation.folder, *folders, *loras]
    files = fingerprint(Path(path) for path in paths if path)
    return hashlib.sha256((json.dumps(values, sort_keys=True) + files).encode()).hexdigest()


def _artefacts(folder: Path, name: str) -> list[Path]:
    """LoRA files of this name, numbered ones included."""
    pattern = re.compile(re.escape(name) + r"(-\d+|-step\d+)?", re.IGNORECASE)
    return [path for path in folder.glob("*.safetensors") if pattern.fullmatch(path.stem)]


def _read(path: Path) -> dict | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and {"mark", "result"} <= value.keys() else None


def _result(value: dict) -> TrainResult:
    files, samples = (tuple(Path(path) for path in value[key]) for key in ("files", "samples"))
    artefact = Path(value["artefact"]) if value["artefact"] else None
    more = {"files": files, "samples": samples, "artefact": artefact, "run_dir": Path(value["run_dir"]), "losses": tuple(value["losses"])}
    more["validation"] = tuple((step, loss) for step, loss in value.get("validation", ()))
    return TrainResult(**value | more)
