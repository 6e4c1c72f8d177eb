"""The two things a run leaves behind: artefacts that users load, and the state from which it can go on exactly."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .config import TrainConfig
from .errors import ModelFileError, NonFiniteLoss, ResumeMismatch, first_line
from .files import from_home, replacing, require_space, write_bytes
from .metadata import with_hashes
from .methods import METHODS
from .optim.schedules import warmup_steps

STATE_FILE = "state.pt"
_STATE_VERSION = 2
# Settings and whole sections that may change between a stop and a resume, for what is trained does not depend on them.
HARMLESS = (
    "save",
    "sample",
    "validate",  # but for `validate.split`, which takes pictures out of training
    "train.epochs",
    "train.steps",
    "train.device",
    "memory.offload",
    "memory.checkpoint_every",
    "train.gradient_checkpointing",
    "memory.micro_batch",  # but for rounding
    "dataset.cache",
    "base.tokenizer",
    "from_presets",
)
_BY_CONTENT = ("base.checkpoint", "base.vae", "base.loras", "dataset.folders")  # what they hold counts, not where it is
_OF_LENGTH = ("schedule.length", "schedule.warmup_steps")  # what follows from the number of steps may change, with a warning


def artefact_path(config: TrainConfig, *, epoch: int | None = None, step: int | None = None) -> Path:
    """`<name>-000001`, `<name>-step00000050`, or `<name>` for the final file, as kohya names them."""
    ending = f"-{epoch:06d}" if epoch is not None else f"-step{step:08d}" if step is not None else ""
    return from_home(config.save.dir).absolute() / f"{config.save.name}{ending}.safetensors"


def artefact_names(config: TrainConfig) -> list[str]:
    """The names that `artefact_path` gives, with `#` for each digit."""
    return [f"{config.save.name}{ending}.safetensors" for ending in ("", "-######", "-step########")]


def outdated(config: TrainConfig, saved: Sequence[Path]) -> list[Path]:
    """The numbered files of a run, of all that it saved in order, that save.keep_last gives up.

    A run may go on under another name or in another folder; what it saved before is left alone.
    """
    numbered = [path for path in saved if path.parent == artefact_path(config).parent and _is_numbered(path, config)]
    return numbered[: -config.save.keep_last] if config.save.keep_last else []


def existing_artefacts(config: TrainConfig) -> list[Path]:
    """Files that a new run of this name would replace."""
    final = artefact_path(config)
    found = [path for path in final.parent.iterdir() if _is_numbered(path, config)] if final.parent.is_dir() else []
    return sorted(found) + ([final] if final.exists() else [])


def _is_numbered(path: Path, config: TrainConfig) -> bool:
    return re.fullmatch(re.escape(config.save.name) + r"-(\d{6}|step\d{8})\.safetensors", path.name) is not None


def save_artefact(path: Path, tensors: dict[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file and read it back; ModelFileError if what is on the disk is not what was meant."""
    from safetensors import safe_open

    write_bytes(path, with_hashes(tensors, metadata))
    with safe_open(str(path), framework="pt") as file:
        written = set(file.keys())
        if written != set(tensors):
            raise ModelFileError(f"{path}: {len(set(tensors) ^ written)} tensors differ from what was saved")
        for name in written:
            if not torch.equal(file.get_tensor(name), tensors[name]):
                raise ModelFileError(f"{path}: tensor {name} was not written correctly; the disk may be faulty")


@dataclass(frozen=True)
class State:
    """Where a run stands after `step` optimizer steps. `changes` says what of the run's length is another since it was saved."""

    step: int
    tensors: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    averaging: dict[str, Any] = field(default_factory=dict)
    ladder: dict[str, Any] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


def save_state(run_dir: Path, state: State, fingerprint: Mapping[str, Any]) -> Path:
    """Replace the run's state in one rename: the old or the new one is whole at any moment.

    NonFiniteLoss where a weight is not a finite number: the state before is one to go on from, this is not.
    """
    if broken := not_finite(state.tensors):
        raise NonFiniteLoss(broken_weights(broken, state.step))
    path = run_dir / STATE_FILE
    value = {"version": _STATE_VERSION, "fingerprint": dict(fingerprint), **vars(state)}
    del value["changes"]
    require_space(run_dir, _bytes_in(value), str(path))
    # Through a Python file, a full disk is an OSError; torch's own writer reports it as an unspecific RuntimeError.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(value, file)
    return path


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinite numbers."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]


def broken_weights(names: Sequence[str], step: int) -> str:
    """What to say of weights that are no numbers any more."""
    return (
        f"after step {step}, {len(names)} trained tensors hold numbers that are not finite, for example {names[0]}: a gradient overflowed. "
        "They are not saved; continue from the last state with --resume, with a lower optimizer.lr, or train.precision bf16 or fp32"
    )


def load_state(run_dir: Path, fingerprint: Mapping[str, Any]) -> State | None:
    """The state of a run folder, or None where there is none. ResumeMismatch lists how the job differs from the saved one."""
    path = run_dir / STATE_FILE
    if not path.is_file():
        return None
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ResumeMismatch(f"{path} cannot be read ({first_line(error)}); remove it to start from the beginning") from None
    version = value.get("version") if isinstance(value, dict) else None
    if version != _STATE_VERSION:
        raise ResumeMismatch(f"{path} was written by another version (state format {version}); start without --resume")
    # An earlier version may have counted what is harmless.
    saved = {key: mark for key, mark in value["fingerprint"].items() if key in fingerprint or not _is_among(key, HARMLESS)}
    saved = {key: default for key, default in _defaults().items() if key in fingerprint} | saved  # nor may it have known each setting
    differences = {
        key: f"{key}: was {saved.get(key)!r}, now {fingerprint.get(key)!r}"
        for key in sorted(set(saved) | set(fingerprint))
        if saved.get(key) != fingerprint.get(key)
    }
    changes = tuple(text for key, text in differences.items() if key in _OF_LENGTH)
    if len(differences) > len(changes):
        raise ResumeMismatch(
            f"{path} belongs to another job; change these back, or choose another save.name:\n  " + "\n  ".join(differences.values())
        )
    return State(value["step"], value["tensors"], value["optimizer"], value["scaler"], value["averaging"], value.get("ladder", {}), changes)


def fingerprint(
    config: TrainConfig, dataset_digest: str, model_identity: Mapping[str, str], length: int, processes: int = 1
) -> dict[str, Any]:
    """What must be equal for a resumed run to equal an uninterrupted one, as flat names and plain values.

    The number of steps counts where the learning rate depends on it; another one is no other job, but it is said.
    """
    flat: dict[str, Any] = {}
    _flatten("", config.as_dict(), flat)
    flat = {key: value for key, value in flat.items() if not _is_among(key, HARMLESS + _BY_CONTENT)}
    flat["dataset.batch_size"] = config.dataset.batch_size * processes  # two that share the work are one with twice the batch
    flat["validate.split"] = config.validation.split
    flat["dataset"] = dataset_digest
    flat["schedule.length"] = length if not config.schedule.kind.startswith("constant") else None
    flat |= {f"method.{name}": value for name, value in METHODS[config.method.kind].mark(config.method, length).items()}
    flat["schedule.warmup_steps"] = warmup_steps(config.schedule, length)
    return flat | {f"base.{part}": digest for part, digest in model_identity.items()}


def _defaults() -> dict[str, Any]:
    """Flat names and values of the settings that need not be given."""
    flat: dict[str, Any] = {}
    least = TrainConfig.model_validate({"base": {"checkpoint": "-"}, "dataset": {"folders": [{"path": "-"}]}})
    _flatten("", least.as_dict(), flat)
    return flat


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), item, into)
    else:
        into[prefix] = value


def _is_among(key: str, names: Sequence[str]) -> bool:
    """Whether a flat name is one of `names` or lies in one of these sections."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _bytes_in(value: Any) -> int:
    """Bytes of all tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(_bytes_in(item) for item in items)
