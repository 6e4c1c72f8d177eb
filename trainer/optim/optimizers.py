"""The optimizers a configuration can name. One frozen row each; a new one needs nothing else."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..config import OptimizerSection
from ..errors import ConfigError
from .names import unknown_name

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OptimizerRow:
    """Where a class is found, what to install for it, its memory, where our defaults differ from its own, and what it is like."""

    path: str
    package: str
    state_bytes: int  # per trained number
    defaults: Mapping[str, Any] = field(default_factory=dict)
    averages: bool = False  # it has `train()` and `eval()`, between which the weights are exchanged for their average
    finds_rate: bool = False  # `lr` only multiplies the rate that it finds, and is one for all parameters
    paged: bool = False  # its state can move from GPU memory to the host's

    def load(self) -> Callable[..., torch.optim.Optimizer]:
        """The class. ImportError where the package is missing."""
        module, _, name = self.path.rpartition(".")
        return getattr(importlib.import_module(module), name)


_BITSANDBYTES = "bitsandbytes>=0.50"

# Defaults are the packages' own (AdamW weight_decay 0.01, SGD without momentum, Lion weight_decay 0), so that their
# documentation is ours too; `optimizer.args` changes them. Two differ: bitsandbytes has no SGD without momentum, and
# Adafactor follows `optimizer.lr`. It is transformers', for torch's always scales the rate by the size of the weights,
# with which the up matrices, zero at the start, would hardly ever move.
OPTIMIZERS: dict[str, OptimizerRow] = {
    "adamw": OptimizerRow("torch.optim.AdamW", "torch", 8),
    "adamw8bit": OptimizerRow("bitsandbytes.optim.AdamW8bit", _BITSANDBYTES, 2),
    "paged_adamw8bit": OptimizerRow("bitsandbytes.optim.PagedAdamW8bit", _BITSANDBYTES, 2, paged=True),
    "lion": OptimizerRow("lion_pytorch.Lion", "lion-pytorch", 4),
    "lion8bit": OptimizerRow("bitsandbytes.optim.Lion8bit", _BITSANDBYTES, 1),
    "sgd": OptimizerRow("torch.optim.SGD", "torch", 4),
    "sgd8bit": OptimizerRow("bitsandbytes.optim.SGD8bit", _BITSANDBYTES, 1, {"momentum": 0.9}),
    "adafactor": OptimizerRow(
        "transformers.optimization.Adafactor", "transformers>=4.50", 1, {"relative_step": False, "scale_parameter": False}
    ),
    "prodigy": OptimizerRow("prodigyopt.Prodigy", "prodigyopt>=1.0", 16, finds_rate=True),
    "adamw_schedulefree": OptimizerRow("schedulefree.AdamWScheduleFree", "schedulefree>=1.3", 8, averages=True),
}

# Set elsewhere: by the parameter groups and by `optimizer.lr`.
RESERVED = {"params": "the parameters are chosen by the method", "lr": "set optimizer.lr instead"}


def check_optimizer(section: OptimizerSection) -> list[str]:
    """One sentence per mistake, found without a model: kind, package, argument names and types, values out of range."""
    row = OPTIMIZERS.get(section.kind)
    if row is None:
        return [unknown_name("optimizer.kind", section.kind, OPTIMIZERS)]
    try:
        kind = row.load()
    except Exception as error:  # a package that is installed but broken fails in its own ways
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        return [f'optimizer.kind: {section.kind} needs a package that {reason}; run: pip install "{row.package}"']
    arguments, problems = _arguments(kind, row, section)
    rates = {rate for rate in _rates(section) if rate}
    if row.finds_rate and len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in sorted(rates))
        problems.append(f"optimizer: {section.kind} finds one rate for all parts, but the rates are {listed}; leave all but lr unset")
    return problems or _trial(kind, section, arguments)


def optimizer_warnings(section: OptimizerSection, schedule: str, device: str) -> list[str]:
    """What a good section will do otherwise than expected with a schedule (its kind) on a type of device."""
    row, warnings = OPTIMIZERS[section.kind], []
    if row.finds_rate and not 0.1 < section.lr < 10:
        warnings.append(f"optimizer.lr: {section.kind} finds the rate itself, and {section.lr:g} only multiplies it; set it to 1")
    if row.averages and not schedule.startswith("constant"):
        warnings.append(f"schedule.kind: {section.kind} needs no schedule, and {schedule} holds it back; use constant")
    if row.paged and device == "cpu":
        warnings.append(f"optimizer.kind: {section.kind} moves memory of a GPU; on the CPU it does nothing beyond the one without paged_")
    return warnings


def _rates(section: OptimizerSection) -> Iterator[float]:
    """The rate of every parameter group that the section can lead to."""
    parts = [getattr(section, name) for name in OptimizerSection.model_fields if name.endswith("_lr")]
    for rate in (section.lr if part is None else part for part in parts):
        yield from (rate, rate * (section.lora_plus or 1))


def build_optimizer(section: OptimizerSection, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer over `groups`; each has "params", "name" and "lr", which stay readable in `param_groups`.

    ConfigError lists what `check_optimizer` finds. torch's own optimizers run fused where the device can: one kernel
    for all of an adapter's many small tensors instead of several for each.
    """
    problems = check_optimizer(section)
    if problems:
        raise ConfigError(problems)
    row = OPTIMIZERS[section.kind]
    kind = row.load()
    arguments, _ = _arguments(kind, row, section)

    def build(**speed: bool) -> torch.optim.Optimizer:
        return kind([dict(group) for group in groups], lr=section.lr, **arguments, **speed)

    chosen = {"fused", "foreach", "differentiable"} & arguments.keys()
    if "fused" in inspect.signature(kind).parameters and not chosen:
        try:
            return build(fused=True)
        except RuntimeError:  # no fused kernel for this device or torch version; torch picks foreach or a plain loop
            pass
    return build()


def _arguments(kind: Callable[..., Any], row: OptimizerRow, section: OptimizerSection) -> tuple[dict[str, Any], list[str]]:
    """Keyword arguments for the constructor, converted to the types it expects, and what is wrong with them."""
    parameters = inspect.signature(kind).parameters.values()
    signature = {parameter.name: parameter for parameter in parameters if parameter.default is not inspect.Parameter.empty}
    usable = [name for name in signature if name not in RESERVED]
    arguments, problems = dict(row.defaults), []
    for name, value in section.args.items():
        where = f"optimizer.args.{name}"
        if name in RESERVED:
            problems.append(f"{where}: {RESERVED[name]}")
        elif name not in signature:
            problems.append(unknown_name(where, name, usable, f"no argument of {section.kind}"))
        else:
            try:
                arguments[name] = _converted(value, signature[name])
            except ValueError as error:
                problems.append(f"{where}: expected {error}, got {value!r}")
    return arguments, problems


def _converted(value: Any, parameter: inspect.Parameter) -> Any:
    """`value` in the type of the argument's default; the ValueError names the expected type."""
    default = parameter.default
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if isinstance(default, (int, float)):
        return _number(value, default)
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or len(value) != len(default):
            raise ValueError(f"a list of {len(default)} numbers such as {list(default)}")
        return tuple(_number(item, 0.0) for item in value)
    if default is None and value is not None and not isinstance(value, bool):
        if "bool" in str(parameter.annotation):
            raise ValueError("true, false or null")
        return _number(value, 0.9)
    return value


def _number(value: Any, default: float) -> float:
    """YAML reads `1e-2` (no point) as a text, so texts that are numbers count as numbers."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"a number such as {default}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"a number such as {default}")
    return value


def _trial(kind: Callable[..., torch.optim.Optimizer], section: OptimizerSection, arguments: Mapping[str, Any]) -> list[str]:
    """Let the constructor itself judge the ranges, on one throw-away number."""
    import torch

    try:
        kind([torch.zeros(1, requires_grad=True)], lr=section.lr, **arguments)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        given = ", ".join(f"{name}={value}" for name, value in {"lr": section.lr, **section.args}.items())
        reason = str(error) or "a value is out of its range"
        return [f"optimizer: {section.kind} refuses {given}: {reason}"]
    return []
