"""The preflight report: what a job would do, without training it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .cheaper import cheaper, device_mib
from .config import TrainConfig
from .data.report import DatasetReport, describe_dataset
from .estimate import MIB, Estimate, estimate
from .events import Warned
from .families import FAMILIES, find_family, load_base
from .feed import reading_of
from .files import free_bytes
from .methods import METHODS
from .methods.block_plan import BlockReport
from .optim.schedules import warmup_steps
from .places import run_dir_of
from .plan import Plan, make_plan, without_effect
from .precision import DTYPES, resolve_device
from .preflight import check_family, check_length, check_places, check_settings, in_the_way


@dataclass(frozen=True)
class CheckReport:
    """Everything that is known before training."""

    family: str
    device: str
    dataset: DatasetReport
    blocks: BlockReport | None  # where blocks train differently
    plan: Plan
    estimate: Estimate
    free_mib: int  # on the disk
    device_mib: int | None  # memory that the device has for this
    files: int  # LoRA files of the run that lie there at once, at most
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return self.dataset.as_dict() | {
            "family": self.family,
            "device": self.device,
            "steps": self.plan.total_steps,
            "epochs": self.plan.epochs,
            "steps_per_epoch": self.plan.steps_per_epoch,
            "held_out": len(self.plan.held_out),
            "estimated_mib": self.estimate.total_mib,
            "estimated_stages_mib": self.estimate.stages,
            "device_mib": self.device_mib,
            "lora_mib": round(self.estimate.file_mib, 1),
            "trained_parameters": self.estimate.parameters,
            "free_disk_mib": self.free_mib,
            "blocks": self.blocks.as_rows() if self.blocks else None,
            "warnings": [*self.warnings, *self.dataset.warnings],
        }

    def lines(self) -> list[str]:
        """What `check` prints."""
        config, plan, need = self.plan.config, self.plan, self.estimate
        samples = sum(plan.repeats(0))
        accumulation = config.train.gradient_accumulation
        per = f"{config.dataset.batch_size}" + (f" x {accumulation} accumulated" if accumulation > 1 else "")
        warm = warmup_steps(config.schedule, plan.total_steps)
        return [
            f"base model: {self.family}, {config.base.checkpoint}",
            f"device: {self.device}, {config.train.precision}",
            *self.dataset.lines(),
            f"held out for validation: {len(plan.held_out)}",
            f"steps: {samples} samples / batch {per} = {plan.steps_per_epoch} per epoch; "
            f"{plan.epochs} epochs = {plan.total_steps} steps, {warm} of them warm-up",
            *(self.blocks.lines() if self.blocks else ()),
            f"LoRA: {need.parameters:,} numbers, {need.file_mib:.1f} MiB per file, up to {self.files} files",
            f"memory (estimated): {need.total_mib:,} MiB = the most of "
            + ", ".join(f"{stage} {size:,}" for stage, size in need.stages.items())
            + f"; training is base {need.base_mib:,.0f} + trained {need.trained_mib:,.0f} + activations and gradients "
            f"{need.activations_mib:,.0f}, with overhead",
            f"free disk: {self.free_mib:,} MiB in {config.save.dir}",
            *(f"warning: {text}" for text in self.warnings),
        ]


def check(config: TrainConfig, *, resume: bool = False) -> CheckReport:
    """Look at settings, model header, pictures and captions; raises what `train` would raise.

    With `resume`, files of the job's name do not matter.

    Nothing is written but what is remembered of pictures, in the folder of the caches.
    """
    warnings = check_settings(config)
    family = find_family(config.base.checkpoint, config.base.family, FAMILIES)
    check_family(config, family.spec)
    run_dir = run_dir_of(config)
    check_places(config, run_dir, resume=True, make=False)
    warnings += [text] if not resume and (text := in_the_way(config, run_dir)) else []
    plan = make_plan(config)
    warnings += check_length(config, plan.total_steps) + without_effect(plan)
    model = load_base(family, config.base, torch.device("meta"), DTYPES[config.train.precision], config.memory)
    model.tokenizer = model.reader(reading_of(config.dataset.captions))
    warnings += [note.text for note in model.notes if isinstance(note, Warned)]
    tokenizer = model.tokenizer
    dataset = describe_dataset(plan.scan, config.dataset, lambda caption: len(tokenizer.ids(caption)), tokenizer.limit, plan.held_out)
    largest = max((placement.bucket for placement in plan.placements), key=lambda size: size[0] * size[1])
    blocks = METHODS[config.method.kind](config.method, config.optimizer).report(family, model)
    warnings += blocks.warnings if blocks else ()
    need = estimate(config, family, model, largest)
    device = resolve_device(config.train.device)
    room = device_mib(device)
    if room is not None and need.total_mib > room:
        advice = cheaper(config, family, largest, device, room)
        warnings.append(f"memory: {need.total_mib:,} MiB are needed (estimated), {device} has {room:,}; {advice}")
    files = _saves(plan)
    free = free_bytes(run_dir) // MIB
    if files * need.file_mib > free:
        warnings.append(f"save.dir: {files} files of {need.file_mib:.0f} MiB need more than the {free:,} MiB that are free")
    return CheckReport(
        family=family.spec.title,
        device=str(device),
        dataset=dataset,
        blocks=blocks,
        plan=plan,
        estimate=need,
        free_mib=free,
        device_mib=room,
        files=files,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _saves(plan: Plan) -> int:
    """How many LoRA files of a whole run lie there at once: numbered ones and, at the end, the final one."""
    save = plan.config.save
    periods = [save.every_epochs * plan.steps_per_epoch] if save.every_epochs else []
    periods += [save.every_steps] if save.every_steps else []
    numbered = len({step for period in periods for step in range(period, plan.total_steps, period)})
    return min(numbered, save.keep_last or numbered) + 1  # a file is given up when the next one is written
