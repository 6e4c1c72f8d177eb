"""The strength test: the grid whose columns are LoRA files and whose rows are strengths."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..events import Listener, StopCheck, ignore, never
from .axes import lora_axis, number_axis
from .xyz import DrawnGrid, GridPlan, draw_cells

if TYPE_CHECKING:
    from ..config import BaseSection, SampleSection
    from .shelf import Shelf


def strength_plan(files: Sequence[Path], strengths: Sequence[float], sample: SampleSection, resolution: tuple[int, int]) -> GridPlan:
    """Every prompt of `sample` with every LoRA file at every strength."""
    from ..sample import requests

    problems = [] if sample.prompts else ["sample.prompts: a strength test needs at least one prompt"]
    problems += [] if files else ["files: a strength test needs at least one LoRA file"]
    problems += [] if strengths else ["strengths: give at least one number"]
    if problems:
        raise ConfigError(problems)
    return GridPlan(tuple(requests(sample, resolution)), x=lora_axis(files), y=number_axis("strength", strengths))


def draw_plan(
    base: BaseSection,
    plan: GridPlan,
    *,
    precision: str = "bf16",
    device: str = "auto",
    shelf: Shelf | None = None,
    with_plain: bool = False,
    listen: Listener = ignore,
    stop: StopCheck = never,
) -> DrawnGrid:
    """Draw a grid with the trainer's own sampler. Pictures that `shelf` holds are not drawn again; see `draw_cells`."""
    from ..diffusion.samplers import SAMPLERS, SCHEDULERS
    from ..families.loading import check_loras
    from .painter import TrainerPainter
    from .shelf import MemoryShelf

    problems = check_loras(base)
    for request in plan.prompts:
        for name, known in (("sampler", SAMPLERS), ("scheduler", SCHEDULERS)):
            value = getattr(request, name)
            problems += [] if value in known else [f"sample.{name}: {value!r} is unknown; known: {', '.join(known)}"]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    with closing(TrainerPainter(base, precision, device, listen)) as painter:
        return draw_cells(plan, painter, shelf or MemoryShelf(), listen, stop, with_plain=with_plain)
