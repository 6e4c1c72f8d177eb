"""Names of runs: one that is taken is never reused for something else, and equal jobs are not done twice."""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ..trainer import TrainConfig, TrainResult
from ..trainer.checkpoint import STATE_FILE
from ..trainer.files import write_text
from ..trainer.log import LOG_FILE, last_steps
from ..trainer.queue.status import progress_text
from .fingerprint import fingerprint

RECORD, CONFIG_FILE = "comfyui.json", "config.yaml"


@dataclass(frozen=True)
class Run:
    """Where a job goes. `result` is there when it was done before; `resume` when it was stopped half-way.

    `passed` is an unfinished run with other settings that has the name that this job was to have.
    """

    config: TrainConfig
    mark: str
    resume: bool = False
    result: TrainResult | None = None
    passed: str | None = None

    def remember(self, result: TrainResult | None = None) -> None:
        """Note in the run's folder that the job can be resumed or, with a result, that it is done."""
        value = {"mark": self.mark, "result": asdict(result) if result and result.status == "done" else None}
        write_text(Path(str(self.config.save.run_dir)) / RECORD, json.dumps(value, default=str))


def find_run(config: TrainConfig, lora_folder: Path, run_folder: Path) -> Run:
    """The job under its own name if that is free or was this very job, else under name_2, name_3 …"""
    mark, unfinished = _mark(config), None
    for number in itertools.count(1):
        name = config.save.name if number == 1 else f"{config.save.name}_{number}"
        placed = _placed(config, name, lora_folder, run_folder / name)
        known = _read(run_folder / name / RECORD)
        same = known is not None and known["mark"] == mark
        if same and (run := _again(placed, mark)):
            return run
        if (same or known is None) and not _artefacts(lora_folder, name):
            return Run(placed, mark, passed=unfinished)
        if known and not known["result"] and not unfinished:
            unfinished = name
    raise AssertionError("unreachable")


def reopen_run(config: TrainConfig, name: str, lora_folder: Path, run_folder: Path) -> Run:
    """An earlier run of this name: what is left of it to do, or its result. ValueError where it left nothing to go on from."""
    placed = _placed(config, name, lora_folder, run_folder / name)
    run = _again(placed, _mark(placed))
    if run is None:
        raise ValueError(f"run: {run_folder / name} holds no saved state to go on from; train it from the beginning with Train LoRA")
    return run


def saved_runs(run_folder: Path) -> list[str]:
    """The names of the runs that a training can go on from, the newest first."""
    states = [state for state in run_folder.glob(f"*/{STATE_FILE}") if (state.parent / CONFIG_FILE).is_file()]
    return [state.parent.name for state in sorted(states, key=lambda state: state.stat().st_mtime, reverse=True)]


def describe_run(folder: Path) -> str:
    """A run in a line: its name, the step it is at, the loss of the last steps, and when it was saved."""
    saved = datetime.fromtimestamp((folder / STATE_FILE).stat().st_mtime)
    return f"{folder.name}: {progress_text(last_steps(folder / LOG_FILE)) or 'step 0'}, {saved:%Y-%m-%d %H:%M}"


def lost_files(name: str, run_folder: Path) -> list[Path]:
    """Files of finished runs of this name, and of name_2, name_3 …, that are no longer there."""
    numbered = re.compile(re.escape(name) + r"(_\d+)?")
    folders = [record.parent for record in run_folder.glob(f"*/{RECORD}") if numbered.fullmatch(record.parent.name)]
    results = [known["result"] for folder in folders if (known := _read(folder / RECORD)) and known["result"]]
    return sorted(file for result in results for file in _result(result).files if not file.is_file())


def _placed(config: TrainConfig, name: str, lora_folder: Path, folder: Path) -> TrainConfig:
    save = config.save.model_copy(update={"name": name, "dir": str(lora_folder), "run_dir": str(folder)})
    return config.model_copy(update={"save": save})


def _again(placed: TrainConfig, mark: str) -> Run | None:
    """A run that was here before: its result if its LoRA is there, else where it stands.

    A finished run whose LoRA was deleted writes it again from its state.
    """
    folder = Path(str(placed.save.run_dir))
    known = _read(folder / RECORD)
    result = _result(known["result"]) if known and known["mark"] == mark and known["result"] else None
    if result and result.artefact and result.artefact.is_file():
        return Run(placed, mark, result=result)
    return Run(placed, mark, resume=True) if (folder / STATE_FILE).is_file() else None


def _mark(config: TrainConfig) -> str:
    """Changes with every setting and every file of the job, not with its name or with where its settings come from."""
    save = config.save.model_copy(update={"name": "-", "dir": "-", "run_dir": None})
    values = config.model_copy(update={"save": save, "from_presets": ()}).as_dict()
    values["dataset"]["cache"]["dir"] = None
    folders = [path for folder in config.dataset.folders for path in (folder.path, folder.masks)]
    loras = [config.method.continue_from, *(lora.file for lora in config.base.loras)]
    checkpoint = Path(config.base.checkpoint)
    beside = sorted(checkpoint.parent.glob(f"{glob.escape(checkpoint.stem)}.vae.*"))  # a VAE there is used without being named
    paths = [checkpoint, config.base.vae, config.validation.folder, *folders, *loras, *beside]
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
