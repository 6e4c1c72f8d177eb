"""Pictures of a block analysis: bars over the network's shape, and a contact sheet with a map of the changes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

from .block_chart import draw_blocks
from .grid import PAPER, draw_grid
from .metrics import difference

if TYPE_CHECKING:
    from PIL.Image import Image

    from .block_effects import BlockEffects, Effect

BRIGHTEST = 128  # grey levels: changes from here on have the map's last colour
WIDEST_CELL = 256  # pixels; larger pictures are reduced on the sheet


def effect_charts(effects: BlockEffects, title: str) -> list[Image]:
    """For each ratio how much each tried block changed, in percent of the pixels. Blocks of one set have its number."""
    charts = []
    table = effects.question.lora.table
    for ratio in dict.fromkeys(effect.trial.ratio for effect in effects.effects):
        found = [effect for effect in effects.effects if effect.trial.ratio == ratio]
        values = {block: 100 * effect.mean for effect in found for block in effect.trial.blocks}
        label = f"pixels changed at weight {ratio:g}, %"
        charts.append(draw_blocks(table, values, present=values, title=title, label=label))
    return charts


def contact_sheet(effects: BlockEffects, title: str, note: str = "") -> Image:
    """The reference, and for each trial its pictures beside maps of the difference from it, seeds below each other."""
    from PIL import Image as Images

    reference = draw_grid([[_small(picture)] for picture in effects.references], title="as it is")
    parts = [reference, *(_part(effects.references, effect) for effect in effects.effects)]
    ratios = len({effect.trial.ratio for effect in effects.effects}) or 1
    blank = Images.new("RGB", (1, 1), PAPER)
    across = ceil(sqrt(len(parts) * parts[-1].height / parts[-1].width) / ratios) * ratios  # a set's ratios stay beside each other
    if ratios > 1:
        parts[1:1] = [blank] * (across - 1)  # the reference has a row of its own
    parts += [blank] * (-len(parts) % across)
    return draw_grid([parts[start : start + across] for start in range(0, len(parts), across)], title=title, footnote=note)


def heat_map(before: Image, after: Image) -> Image:
    """Where two pictures differ: black for equal, over red and yellow to white for `BRIGHTEST` grey levels and more."""
    from matplotlib import colormaps
    from PIL import Image as Images

    scaled = np.clip(difference(before, after) / BRIGHTEST, 0, 1)
    return Images.fromarray(np.uint8(colormaps["inferno"](scaled)[..., :3] * 255))


def _part(references: Sequence[Image], effect: Effect) -> Image:
    rows = [[_small(after), _small(heat_map(before, after))] for before, after in zip(references, effect.pictures, strict=True)]
    return draw_grid(rows, title=f"{effect.trial.name} = {effect.trial.ratio:g}: {effect.mean:.1%}")


def _small(picture: Image) -> Image:
    scale = min(1.0, WIDEST_CELL / max(picture.size))
    return picture if scale == 1 else picture.resize((round(picture.width * scale), round(picture.height * scale)))
