"""What a cell of a grid costs beside a plain sample: the same picture by the same sampler, with a LoRA that stays as it is.

    python benchmarks/grid_cells.py --lora out/demo/zibu-000003.safetensors out/demo/zibu.safetensors
    python benchmarks/grid_cells.py --checkpoint sd15.safetensors --lora a.safetensors b.safetensors --size 256 --steps 10

Every cell has another strength, every row another file. Plain samples are drawn before and after the grid, in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trainer import draw_grid
from trainer.config import BaseSection, SampleSection
from trainer.demo import base_folder
from trainer.evaluate.canvas import open_canvas
from trainer.evaluate.shelf import FolderShelf
from trainer.evaluate.strength import strength_plan
from trainer.evaluate.xyz import GridPlan
from trainer.events import CellDrawn, Event

Clock = Callable[[], float]
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def plain_samples(base: BaseSection, plan: GridPlan, file: Path, precision: str, count: int, clock: Clock) -> list[float]:
    """Seconds of each picture after the first."""
    seconds = []
    with open_canvas(base, precision=precision) as canvas:
        canvas.use(file)
        for _ in range(count + 1):
            start = clock()
            canvas.draw(plan.prompts[0])
            seconds.append(clock() - start)
    return seconds[1:]


def cells(base: BaseSection, plan: GridPlan, precision: str, clock: Clock) -> tuple[list[float], list[float]]:
    """Seconds of each cell whose file was there already, and of each for which a file was read; without the very first."""
    moments: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, CellDrawn):
            moments.append(clock())

    with tempfile.TemporaryDirectory() as folder:
        shelf = FolderShelf(Path(folder), model=Path(base.checkpoint))
        draw_grid(base, plan, precision=precision, shelf=shelf, listen=note)
    seconds = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    each = plan.shape[1]
    return [value for number, value in enumerate(seconds, 1) if number % each], seconds[each - 1 :: each]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--checkpoint", default=str(base_folder()), help="default: the demo base")
    parser.add_argument("--tokenizer", default=None, help="folder of the tokenizer, where it is not beside the checkpoint")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="fp32")
    text = "count processor time, which other programs disturb less; with OMP_NUM_THREADS=1, and not for GPUs"
    parser.add_argument("--processor-time", action="store_true", help=text)
    options = parser.parse_args()
    clock = time.process_time if options.processor_time else time.perf_counter
    base = BaseSection(checkpoint=options.checkpoint, tokenizer=options.tokenizer)
    sample = SampleSection.model_validate({"prompts": ["a big zibu on a blue background"], "cfg": 3, "steps": options.steps})
    plan = strength_plan(options.lora, STRENGTHS, sample, (options.size, options.size))

    plain = plain_samples(base, plan, options.lora[0], options.precision, len(STRENGTHS), clock)
    same, changed = cells(base, plan, options.precision, clock)
    plain += plain_samples(base, plan, options.lora[-1], options.precision, len(STRENGTHS), clock)
    usual = statistics.median(plain)
    print(f"plain sample: median {usual:.3f} s of {len(plain)}, {min(plain):.3f} to {max(plain):.3f}")
    for name, values in (("cell, other strength", same), ("cell, other file", changed)):
        if values:
            middle = statistics.median(values)
            print(f"{name}: median {middle:.3f} s of {len(values)}, {middle / usual:.3f} x, {1000 * (middle - usual):+.0f} ms")


if __name__ == "__main__":
    main()
