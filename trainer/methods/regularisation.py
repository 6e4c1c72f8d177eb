"""Checks of settings that restrain the training of an adapter, and of LoRA+."""

from __future__ import annotations

from ..adapters import ADAPTERS, Adapter
from ..config import AdapterSection, OptimizerSection
from ..files import from_home
from ..optim.optimizers import OPTIMIZERS
from ..optim.schedules import part_or_steps

Findings = tuple[list[str], list[str]]  # problems and warnings, one sentence each


def check_training(section: AdapterSection, optimizer: OptimizerSection) -> Findings:
    """What cannot work together, and files that are not there."""
    problems = []
    if not (section.train_unet or section.train_text_encoder):
        problems.append("method: train_unet and train_text_encoder are both off, so nothing would be trained; switch one on")
    if section.continue_from and not from_home(section.continue_from).is_file():
        problems.append(f"method.continue_from: {section.continue_from} is not a file")
    kind = OPTIMIZERS.get(optimizer.kind)
    if section.max_norm is not None and kind is not None and kind.averages:
        problems.append(
            f"method.max_norm: {section.max_norm:g} would limit the weights that {optimizer.kind} trains, not their average, which is "
            "what is saved; leave it unset, or choose another optimizer.kind"
        )
    adapter = ADAPTERS.get(section.adapter)
    return problems + (check_algorithm(adapter, section, optimizer) if adapter else []), []


def check_algorithm(adapter: Adapter, section: AdapterSection, optimizer: OptimizerSection) -> list[str]:
    """Settings that cannot act on this algorithm."""
    problems = []
    if section.rank_dropout and not adapter.drops_ranks:
        able = ", ".join(other.name for other in ADAPTERS.values() if other.drops_ranks)
        problems.append(f"method.rank_dropout: {section.rank_dropout:g} cannot act on {adapter.name}, only on {able}; set it to 0")
    if optimizer.lora_plus is not None and not adapter.up_names:
        able = ", ".join(other.name for other in ADAPTERS.values() if other.up_names)
        problems.append(f"optimizer.lora_plus: {optimizer.lora_plus:g} cannot act on {adapter.name}, only on {able}; leave it unset")
    return problems


def check_text_stop(section: AdapterSection, total: int | None) -> Findings:
    """Of `method.stop_text_encoder`."""
    stop = section.stop_text_encoder
    if stop is None:
        return [], []
    where = f"method.stop_text_encoder: {stop:g}"
    if not section.train_text_encoder:
        return [], [f"{where} has no effect, for train_text_encoder is off"]
    if not section.train_unet:
        return [f"{where} would leave nothing to train, for train_unet is off; leave it unset"], []
    if stop > 1 and stop != int(stop):
        return [f"{where} is neither a part of all steps (below 1) nor a whole number of steps; write {int(stop)}"], []
    if total is not None and part_or_steps(stop, total) >= total:
        return [], [f"{where} has no effect, for there are {total} steps; lower it"]
    return [], []


def text_stop(section: AdapterSection, total: int) -> int | None:
    """After how many steps the text encoder learns no more; None: it learns to the end."""
    return None if section.stop_text_encoder is None else part_or_steps(section.stop_text_encoder, total)
