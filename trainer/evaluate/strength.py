"""The strength test: LoRA files across, strengths down, one fixed seed, drawn with the trainer's own sampler."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..events import CellDrawn, Listener, StopCheck, Warned, ignore, never
from .canvas import Canvas, open_canvas
from .grid import draw_grid

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..config import BaseSection, SampleSection
    from ..sample import Request

_MAX_STRENGTHS = 200


@dataclass(frozen=True)
class StrengthTest:
    """`cells[prompt][strength][file]` are the pictures (None after a stop), `grids[prompt]` the labelled grids."""

    files: tuple[Path, ...]
    strengths: tuple[float, ...]
    prompts: tuple[str, ...]
    cells: list[list[list[Image | None]]]
    grids: list[Image]
    finished: bool


def parse_strengths(text: str) -> tuple[float, ...]:
    """Numbers and ranges such as "0, 0.5, 0.8-1.2/0.2" (from-to/step), in the order given, without repetitions."""
    result: list[float] = []
    for item in re.split(r"[,\s;]+", text.strip()):
        match = re.fullmatch(r"(-?\d*\.?\d+)(?:-(-?\d*\.?\d+)/(\d*\.?\d+))?", item)
        if not match:
            raise ConfigError(f"strengths: {item!r} is neither a number nor a range such as 0.2-1.2/0.2")
        if match[2] is None:
            result.append(float(match[1]))
            continue
        start, end, step = float(match[1]), float(match[2]), float(match[3])
        if step == 0 or end < start or (end - start) / step > _MAX_STRENGTHS:
            raise ConfigError(
                f"strengths: the range {item!r} needs a step above 0, an end not below its start, at most {_MAX_STRENGTHS} values"
            )
        result += [round(start + step * number, 6) for number in range(int((end - start) / step + 1e-6) + 1)]
    return tuple(dict.fromkeys(result))


def strength_test(
    base: BaseSection,
    files: Sequence[Path],
    strengths: Sequence[float],
    sample: SampleSection,
    resolution: tuple[int, int],
    *,
    precision: str = "bf16",
    device: str = "auto",
    listen: Listener = ignore,
    stop: StopCheck = never,
) -> StrengthTest:
    """Draw every prompt of `sample` with every LoRA file at every strength.

    The base model is loaded once; strength 0, which is the same for all files, is drawn once per prompt.
    """
    from ..families.loading import check_loras
    from ..sample import check_sampling, requests

    problems = check_sampling(sample) + check_loras(base)
    problems += [] if sample.prompts else ["sample.prompts: a strength test needs at least one prompt"]
    problems += [] if files else ["files: a strength test needs at least one LoRA file"]
    problems += [] if strengths else ["strengths: give at least one number"]
    if problems:
        raise ConfigError(problems)
    wanted = requests(sample, resolution)
    with open_canvas(base, precision=precision, device=device, listen=listen, stop=stop) as canvas:
        cells = _draw_all(canvas, wanted, [Path(file) for file in files], tuple(strengths), listen)
    columns = [Path(file).stem for file in files]
    rows = [f"strength {strength:g}" for strength in strengths]
    titles = [request.prompt for request in wanted]
    grids = [draw_grid(page, columns, rows, title, _footnote(request)) for page, title, request in zip(cells, titles, wanted, strict=True)]
    finished = all(cell is not None for page in cells for row in page for cell in row)
    return StrengthTest(tuple(Path(file) for file in files), tuple(strengths), tuple(titles), cells, grids, finished)


def _footnote(request: Request) -> str:
    return f"seed {request.seed} · {request.steps} steps · cfg {request.cfg:g} · {request.sampler} / {request.scheduler}"


def _draw_all(canvas: Canvas, wanted: list[Request], files: list[Path], strengths: tuple[float, ...], listen: Listener) -> list[Any]:
    """cells[prompt][strength][file]; file by file, so that each is loaded once."""
    cells: list[list[list[Image | None]]] = [[[None] * len(files) for _ in strengths] for _ in wanted]
    total, done = len(wanted) * len(files) * len(strengths), 0
    for column, file in enumerate(files):
        unused = canvas.use(file)
        if unused:
            listen(Warned(f"{file.name}: {len(unused)} tensors fit no layer of this model, for example {unused[0]}"))
        for page, request in enumerate(wanted):
            for row, strength in enumerate(strengths):
                same = cells[page][row][0] if strength == 0 and column > 0 else None
                image = same or canvas.draw(request, strength)
                if image is None:
                    return cells
                cells[page][row][column] = image
                done += 1
                listen(CellDrawn(done, total, image))
    return cells


def write_pictures(test: StrengthTest, folder: Path) -> list[Path]:
    """Write each prompt's grid as grid.png, grid_2.png …, and every cell under cells/; returns the grids' paths."""
    from ..files import replacing

    def write(image: Image, path: Path) -> None:
        with replacing(path) as temporary:
            image.save(temporary, format="png")

    paths = []
    for page, (cells, grid) in enumerate(zip(test.cells, test.grids, strict=True)):
        paths.append(folder / ("grid.png" if page == 0 else f"grid_{page + 1}.png"))
        write(grid, paths[-1])
        for row, strength in zip(cells, test.strengths, strict=True):
            for image, file in zip(row, test.files, strict=True):
                if image is not None:
                    write(image, folder / "cells" / f"{page + 1}_{file.stem}_strength{strength:g}.png")
    return paths
