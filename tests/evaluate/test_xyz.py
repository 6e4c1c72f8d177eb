"""Grids of up to three axes: what is drawn, how often, and what an interruption costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from trainer import draw_grid, strength_test
from trainer.config import BaseSection, SampleSection
from trainer.errors import ConfigError
from trainer.evaluate import xyz
from trainer.evaluate.axes import Names, lora_axis, make_axis, number_axis
from trainer.evaluate.cells import Cell, LoraUse
from trainer.evaluate.metrics import mean_abs_difference
from trainer.evaluate.shelf import FolderShelf, MemoryShelf
from trainer.evaluate.xyz import GridPlan, draw_cells, write_sheets
from trainer.events import CellDrawn, Status, ignore, never
from trainer.sample import Request

REQUEST = Request("a red cat", "", 1, (64, 64), 1, 1.0, "euler", "normal")
NAMES = Names(samplers=["euler", "heun"])


class Brush:
    """A painter that notes what it draws and gives up after `most` pictures."""

    def __init__(self, most: int = 10**6):
        self.drawn: list[Cell] = []
        self._most = most

    def identity(self, cell: Cell):
        return cell.checkpoint

    def draw(self, cell: Cell, stop):
        if len(self.drawn) == self._most:
            return None
        self.drawn.append(cell)
        return Image.new("RGB", (8, 8), (len(self.drawn), 0, 0))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"cat-{number:06d}.safetensors" for number in (1, 2, 3)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def test_an_interrupted_grid_draws_only_the_rest(files, tmp_path):
    plan = GridPlan((REQUEST, replace(REQUEST, prompt="a red dog")), x=lora_axis(files), y=number_axis("strength", (0, 0.5, 1)))
    events: list = []
    first, second, third = Brush(most=7), Brush(), Brush()
    half = draw_cells(plan, first, FolderShelf(tmp_path / "cells"), events.append, never)
    assert not half.finished and len(list(half.pictures())) > 0
    whole = draw_cells(plan, second, FolderShelf(tmp_path / "cells"), events.append, never)
    assert whole.finished and len(list(whole.pictures())) == 18
    assert len(first.drawn) == 7 and len(second.drawn) == 7, "of 18 places 14 differ: strength 0 is the same for all files"
    assert not set(first.drawn) & set(second.drawn)
    draw_cells(plan, third, FolderShelf(tmp_path / "cells"), events.append, never)
    assert third.drawn == []
    counts = [(event.done, event.total) for event in events if isinstance(event, CellDrawn)]
    assert counts[-1] == (18, 18) and counts == sorted(counts)
    assert [event.text for event in events if isinstance(event, Status)][-1] == "18 of 18 pictures are already drawn"


def test_one_more_value_draws_only_its_own_pictures(files, tmp_path):
    shelf = tmp_path / "cells"
    draw_cells(GridPlan((REQUEST,), x=lora_axis(files[:2]), y=number_axis("strength", (0, 1))), Brush(), FolderShelf(shelf), ignore, never)
    again = Brush()
    draw_cells(GridPlan((REQUEST,), x=lora_axis(files), y=number_axis("strength", (0, 1))), again, FolderShelf(shelf), ignore, never)
    assert [cell.loras[0].file for cell in again.drawn] == [files[2]]


def test_three_axes_and_prompts(files):
    """X across, Y down, pages of every prompt and then of Z."""
    axes = {"x": lora_axis(files[:2]), "y": make_axis("prompt", "red, 红色", NAMES), "z": make_axis("cfg", "1, 4", NAMES)}
    plan = GridPlan((REQUEST, replace(REQUEST, prompt="a red dog")), **axes)
    assert plan.shape == (4, 2, 2)
    cell = plan.cell((3, 1, 0))
    assert (cell.loras[0].file, cell.request.prompt, cell.request.cfg) == (files[0], "a 红色 dog", 4)
    assert [plan.title(page) for page in (0, 3)] == ["a red cat\ncfg 1", "a red dog\ncfg 4"]
    assert plan.footnote(0) == "seed 1 · 1 steps · euler / normal · strength 1"
    grid = draw_cells(plan, brush := Brush(), MemoryShelf(), ignore, never)
    assert len(brush.drawn) == 16 and len(list(grid.sheets())) == 4


def test_other_axes_change_the_file_that_an_axis_puts(files):
    plan = GridPlan((REQUEST,), x=number_axis("strength", (0.2, 0.4)), y=lora_axis(files[1:]), z=make_axis("strength_clip", "0.7", NAMES))
    assert plan.cell((0, 1, 1)).loras == (LoraUse(files[2], 0.4, 0.7),)


def test_a_stack_is_in_every_picture(files):
    plan = GridPlan((REQUEST,), LoraUse(files[0]), (LoraUse(files[1], 0.3),), x=number_axis("strength", (0, 1)))
    assert [plan.cell((0, 0, column)).plain().loras for column in (0, 1)] == [
        (LoraUse(files[1], 0.3, 0.3),),
        (LoraUse(files[0], 1, 1), LoraUse(files[1], 0.3, 0.3)),
    ]
    assert plan.footnote(0).endswith(f"{files[0].stem} · {files[1].stem} strength 0.3")


def test_every_mistake_is_named_at_once(tmp_path):
    axis = number_axis("strength", (1,))
    with pytest.raises(ConfigError, match="2 settings are wrong") as error:
        GridPlan((), x=axis, y=axis).check()
    assert error.value.problems == ["prompts: a grid needs at least one prompt", "axes: strength stands on 2 axes; give each its own"]
    with pytest.raises(ConfigError, match=r"gone\.safetensors is not a file"):
        GridPlan((REQUEST,), LoraUse(tmp_path / "gone.safetensors")).check()


def test_large_pages_are_cut_into_equal_parts(files, tmp_path, monkeypatch):
    monkeypatch.setattr(xyz, "LARGEST_GRID", 512)  # four cells of the smallest size
    plan = GridPlan((REQUEST,), x=make_axis("seed", "1-6/1", NAMES), y=make_axis("steps", "1-5/1", NAMES))
    paths = write_sheets(draw_cells(plan, Brush(), MemoryShelf(), ignore, never), tmp_path)
    assert [path.name for path in paths] == ["grid.png", "grid_2.png", "grid_3.png", "grid_4.png"]
    widths = {Image.open(path).width for path in paths}
    assert len(widths) == 1, "six columns are three and three"


@pytest.fixture(scope="module")
def loras(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random LoRAs over all layers of the tiny base, and one that is both of them joined: up and down side by side."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("loras")
    family, model = tiny.load_model(base)
    sets: list[dict[str, torch.Tensor]] = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        sets.append({})
        for target in family.adapter_targets(model):
            if target.kind == "plain":
                weight = target.module.weight
                sets[-1][f"{target.key}.lora_up.weight"] = torch.randn(len(weight), 2, *weight.shape[2:], generator=generator) * 0.1
                sets[-1][f"{target.key}.lora_down.weight"] = torch.randn(2, *weight.shape[1:], generator=generator) * 0.1
    joined = {name: torch.cat([first, sets[1][name]], dim=1 if "lora_up" in name else 0) for name, first in sets[0].items()}
    paths = [folder / f"{name}.safetensors" for name in ("one", "two", "both")]
    for path, tensors in zip(paths, (*sets, joined), strict=True):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return paths


def only_picture(base: Path, *loras) -> np.ndarray:
    grid = draw_grid(BaseSection(checkpoint=str(base)), GridPlan((REQUEST,), *loras), precision="fp32", device="cpu")
    (picture,) = grid.pictures()
    return np.asarray(picture, dtype=int)


def test_two_stacked_files_are_one_file_with_both(base, loras):
    one, two, both = loras
    stacked = only_picture(base, LoraUse(one), (LoraUse(two),))
    assert np.abs(stacked - only_picture(base, LoraUse(both))).max() <= 1
    assert np.abs(stacked - only_picture(base, LoraUse(one))).max() > 5


def test_the_text_encoder_has_its_own_strength(base, loras):
    plain, text, image, whole = (only_picture(base, LoraUse(loras[0], *s)) for s in ((0, 0), (0, 1), (1, 0), (1, 1)))
    pictures = [plain, text, image, whole]
    assert all(np.abs(a - b).max() > 1 for number, a in enumerate(pictures) for b in pictures[number + 1 :])


def test_block_weights_act(base, loras):
    whole, none, text = (only_picture(base, LoraUse(loras[0], blocks=vector)) for vector in ("1", "0", "IN00-OUT11=0"))
    assert np.array_equal(whole, only_picture(base, LoraUse(loras[0])))
    assert np.abs(whole - none).max() > 5 and np.abs(whole - text).max() > 5


def test_a_strength_test_is_a_grid_and_reads_the_base_once(base, loras, monkeypatch, tmp_path):
    from trainer.families.sd import StableDiffusion

    loads: list[str] = []
    load = StableDiffusion.load
    monkeypatch.setattr(StableDiffusion, "load", lambda self, *given: loads.append("base") or load(self, *given))
    section, sample = BaseSection(checkpoint=str(base)), SampleSection.model_validate({"prompts": ["a cat"], "steps": 1})
    options = {"precision": "fp32", "device": "cpu"}
    grid = strength_test(section, loras, (0, 0.5, 1), sample, (64, 64), shelf=FolderShelf(tmp_path), **options)
    assert loads == ["base"] and grid.finished
    first = [grid.picture((0, 0, column)) for column in range(3)]
    assert all(mean_abs_difference(first[0], other) == 0 for other in first)
    again = strength_test(section, loras, (0, 0.5, 1), sample, (64, 64), shelf=FolderShelf(tmp_path), **options)
    assert loads == ["base"], "nothing is drawn again, so nothing is loaded"
    assert [picture.tobytes() for picture in again.pictures()] == [picture.tobytes() for picture in grid.pictures()]


def test_a_stop_in_the_middle_of_a_picture_keeps_the_others(base, loras, tmp_path):
    drawn: list = []
    plan = GridPlan((REQUEST,), LoraUse(loras[0]), x=number_axis("strength", (0, 0.5, 1)))
    stopped = draw_grid(
        BaseSection(checkpoint=str(base)), plan, precision="fp32", device="cpu", shelf=FolderShelf(tmp_path),
        listen=lambda event: drawn.append(event) if isinstance(event, CellDrawn) else None, stop=lambda: len(drawn) == 2,
    )  # fmt: skip
    assert not stopped.finished and len(list(tmp_path.glob("*.png"))) == 2


def test_unknown_samplers_are_named(base):
    plan = GridPlan((replace(REQUEST, sampler="magic"),))
    with pytest.raises(ConfigError, match=r"sample\.sampler: 'magic' is unknown"):
        draw_grid(BaseSection(checkpoint=str(base)), plan)
