"""A strength test drawn with ComfyUI's own models and sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..trainer.config import SampleSection
from ..trainer.evaluate.grid import draw_grid
from ..trainer.events import CellDrawn, Listener
from . import host, pictures

Cells = list[list[list[torch.Tensor]]]  # [prompt][strength][file], each (1, H, W, 3)


@dataclass(frozen=True)
class NativeTest:
    """What is drawn, and with what."""

    model: Any
    clip: Any
    vae: Any
    files: Sequence[Path]
    strengths: Sequence[float]
    sample: SampleSection
    size: tuple[int, int]

    def draw(self, listen: Listener) -> Cells:
        """Every cell; a file is read once, and strength 0, which is the same for all files, is drawn once."""
        prompts = self.sample.prompts
        cells: Cells = [[[] for _ in self.strengths] for _ in prompts]
        done, total = 0, len(prompts) * len(self.strengths) * len(self.files)
        for file in self.files:
            lora = host.load_lora(file)
            for row, strength in enumerate(self.strengths):
                model, clip = host.apply_lora(self.model, self.clip, lora, strength)
                for page, prompt in zip(cells, prompts, strict=True):
                    same = page[row] and strength == 0
                    page[row].append(page[row][0] if same else self._picture(model, clip, prompt.prompt))
                    done += 1
                    listen(CellDrawn(done, total, pictures.from_tensor(page[row][-1][0])))
        return cells

    def grids(self, cells: Cells) -> list[Image.Image]:
        """One labelled picture per prompt."""
        one = self.sample
        columns = [file.stem for file in self.files]
        rows = [f"strength {strength:g}" for strength in self.strengths]
        note = f"seed {one.seed} · {one.steps} steps · cfg {one.cfg:g} · {one.sampler} / {one.scheduler}"
        drawn = [[[pictures.from_tensor(cell[0]) for cell in row] for row in page] for page in cells]
        return [draw_grid(page, columns, rows, item.prompt, note) for page, item in zip(drawn, one.prompts, strict=True)]

    def _picture(self, model: Any, clip: Any, prompt: str) -> torch.Tensor:
        one = self.sample
        positive, negative = (host.encode_text(clip, text) for text in (prompt, one.negative))
        settings = host.SamplerSettings(*self.size, one.seed, one.steps, one.cfg, one.sampler, one.scheduler)
        return host.decode(self.vae, host.sample(model, positive, negative, settings))
