"""Checks before a weight is read: names, places, model header. Shared by `train` and `check`."""

from __future__ import annotations

from pathlib import Path

from .checkpoint import STATE_FILE, existing_artefacts
from .config import TrainConfig
from .data.buckets import check_buckets
from .data.views import fresh_settings
from .errors import ConfigError
from .families import FamilySpec
from .families.loading import check_loras
from .files import from_home, require_writable
from .methods import METHODS
from .objective import check_objective
from .optim import check_averaging, check_optimizer, optimizer_warnings
from .optim.schedules import check_schedule
from .precision import resolve_device
from .sample import check_sampling


def check_settings(config: TrainConfig) -> list[str]:
    """Warnings. ConfigError lists every setting that cannot work, all at once."""
    problems, warnings = check_schedule(config.schedule)
    parts = (
        check_objective(config.loss, config.noise),
        _check_optimizer(config),
        ([], _memory_warnings(config)),
        METHODS[config.method.kind].check(config.method, config.optimizer),
    )
    for more_problems, more_warnings in parts:
        problems += more_problems
        warnings += more_warnings
    problems += check_loras(config.base)
    problems += check_sampling(config.sample)
    problems += check_buckets(config.dataset)
    for number, folder in enumerate(config.dataset.folders):
        if not from_home(folder.path).is_dir():
            problems.append(f"dataset.folders.{number}.path: {folder.path} is not a folder")
        if folder.masks and not from_home(folder.masks).is_dir():
            problems.append(f"dataset.folders.{number}.masks: {folder.masks} is not a folder")
    if config.validation.folder and not from_home(config.validation.folder).is_dir():
        problems.append(f"validate.folder: {config.validation.folder} is not a folder")
    if problems:
        raise ConfigError(problems)
    if config.dataset.cache.latents and (fresh := fresh_settings(config.dataset.augment)):
        names = ", ".join(f"augment.{name}" for name in fresh)
        warnings.append(f"dataset.{names}: each step encodes its pictures anew, for they differ each time; that takes time and memory")
    return warnings


def check_family(config: TrainConfig, spec: FamilySpec) -> None:
    """ConfigError lists the settings that do not fit the model's family."""
    problems = METHODS[config.method.kind].check_family(config.method, config.optimizer, spec)
    if config.base.clip_skip > spec.max_clip_skip:
        problems.append(
            f"base.clip_skip: {config.base.clip_skip} is too much for {spec.title}, which knows up to {spec.max_clip_skip}; leave it at 1. "
            "The layer before the last, which some call clip skip 2, is what this model always uses"
            if spec.max_clip_skip == 1
            else f"base.clip_skip: {config.base.clip_skip} is too much for {spec.title}, which knows up to {spec.max_clip_skip}"
        )
    if config.optimizer.text_encoder_2_lr is not None and len(spec.text_parts) < 2:
        problems.append(f"optimizer.text_encoder_2_lr: {spec.title} has one text encoder; leave it out and set text_encoder_lr")
    if problems:
        raise ConfigError(problems)


def check_length(config: TrainConfig, total: int) -> list[str]:
    """Warnings about settings that do nothing in a run of so many steps."""
    return [*check_schedule(config.schedule, total)[1], *METHODS[config.method.kind].check(config.method, config.optimizer, total)[1]]


def _check_optimizer(config: TrainConfig) -> tuple[list[str], list[str]]:
    problems = check_optimizer(config.optimizer) + check_averaging(config.optimizer, config.train.ema)
    try:
        device = resolve_device(config.train.device).type
    except ConfigError as error:
        return problems + error.problems, []
    return problems, [] if problems else optimizer_warnings(config.optimizer, config.schedule.kind, device)


def _memory_warnings(config: TrainConfig) -> list[str]:
    warnings = []
    if config.memory.checkpoint_every > 1 and not config.train.gradient_checkpointing:
        warnings.append("memory.checkpoint_every: has no effect without train.gradient_checkpointing")
    try:
        on_cpu = resolve_device(config.train.device).type == "cpu"
    except ConfigError:
        return warnings
    if config.memory.offload and on_cpu:
        warnings.append("memory.offload: has no effect on the CPU, where all weights are in the computer's memory")
    return warnings


def check_places(config: TrainConfig, run_dir: Path, resume: bool, *, make: bool = True) -> None:
    """The output folders can be written, and no file or state of this name would be replaced. With `make`, the folders are made."""
    folder = from_home(config.save.dir).absolute()
    require_writable(folder, "save.dir", make=make)
    require_writable(run_dir, "save.run_dir", make=make)
    if not resume and (text := in_the_way(config, run_dir)):
        raise ConfigError(f"{text}. Nothing was changed")


def in_the_way(config: TrainConfig, run_dir: Path) -> str | None:
    """What of an earlier run a new one would replace, and the remedies."""
    if found := existing_artefacts(config):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"save.name: {found[0]}{more} exists already; choose another name, or continue that run with --resume"
    if (state := run_dir / STATE_FILE).exists():
        remedies = "continue it with --resume, choose another save.name or save.run_dir, or remove it to begin anew"
        return f"save.run_dir: {state} is where an earlier run stands; {remedies}"
    return None
