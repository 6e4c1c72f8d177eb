"""Figures of a grid: each has the number that it should have, and a table, maps and curves come of it."""

from __future__ import annotations

import csv
import gc
import io
import os
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from trainer.evaluate.axes import lora_axis, number_axis
from trainer.evaluate.figures import FIGURES, Table, copies, measure_grid, report_grid, structure_distance, usual_distance
from trainer.evaluate.references import Reference, References
from trainer.evaluate.shelf import MemoryShelf
from trainer.evaluate.xyz import GridPlan, draw_cells
from trainer.events import ignore, never
from trainer.sample import Request

REQUEST = Request("a red cat", "", 1, (64, 64), 1, 1.0, "euler", "normal")


def noise(seed: int) -> Image.Image:
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)


class Brush:
    """Draws grey without a LoRA, and at strength s the mixture of grey and the file's own picture."""

    def identity(self, cell):
        return "brush"

    def draw(self, cell, stop):
        grey = Image.new("RGB", (64, 64), (100, 100, 100))
        if not cell.loras:
            return grey
        return Image.blend(grey, noise(int(cell.loras[0].file.stem[-1])), cell.loras[0].strength)


class Eye:
    """Sees the mean colour of a picture; reads texts as red."""

    def of_pictures(self, pictures):
        colours = np.stack([np.asarray(picture, dtype=float).mean((0, 1)) for picture in pictures])
        return colours / np.linalg.norm(colours, axis=1, keepdims=True)

    def of_text(self, text):
        return np.array([1.0, 0, 0])


@pytest.fixture
def grid(tmp_path: Path):
    files = [tmp_path / f"cat-{number}.safetensors" for number in (1, 2)]
    for file in files:
        file.write_bytes(file.name.encode())
    plan = GridPlan((REQUEST, replace(REQUEST, prompt="other")), x=lora_axis(files), y=number_axis("strength", (0.5, 1)))
    return draw_cells(plan, Brush(), MemoryShelf(), ignore, never, with_plain=True)


@pytest.fixture
def references(tmp_path: Path) -> References:
    """Training pictures 2 and 3; held out, with the first prompt as its caption, 4."""
    made = []
    for number in (2, 3, 4):
        noise(number).save(tmp_path / f"{number}.png")
        made.append(Reference(tmp_path / f"{number}.png", "a red cat"))
    return References(tuple(made[:2]), (made[2],))


def test_every_figure(grid, references):
    table = measure_grid(grid, references, Eye())
    assert set(table.names) == set(FIGURES)
    row, other = table.rows[0, 1, 0], table.rows[1, 1, 0]  # file 1 at strength 1
    one, two, three, four = (np.asarray(noise(number), dtype=float) for number in (1, 2, 3, 4))
    assert row["change"] == pytest.approx(np.abs(one - 100).mean())
    assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(four, one, data_range=255))
    assert row["ssim"] == pytest.approx(structural_similarity(four, one, data_range=255, channel_axis=2))
    assert other["psnr"] is None and other["ssim"] is None, "no held-out picture has this prompt"
    views = [view for picture in (two, three) for view in (picture, picture[:, ::-1])]
    nearest = min(1 - structural_similarity(one, view, data_range=255, channel_axis=2) for view in views)
    assert row["nearest"] == pytest.approx(nearest, abs=1e-6)

    def cosine(a, b):
        a, b = a.mean((0, 1)), b.mean((0, 1))
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    likeness = [cosine(one, two), cosine(one, three)]
    assert row["clip_likeness"] == pytest.approx(np.mean(likeness), abs=1e-3)
    assert row["clip_nearest"] == pytest.approx(1 - max(likeness), abs=1e-3)
    assert row["clip_adherence"] == pytest.approx(one.mean((0, 1))[0] / np.linalg.norm(one.mean((0, 1))), abs=1e-6)


def test_the_training_pictures_are_looked_at_once_and_the_model_is_let_go(grid, references):
    looks = []

    class Watching(Eye):
        def of_pictures(self, pictures):
            looks.append(len(pictures))
            return super().of_pictures(pictures)

    model = Watching()
    measure_grid(grid, references, model)
    assert looks.count(len(references.training)) == 1
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_picture_that_was_edited_is_compared_as_it_is_now(tmp_path):
    file = tmp_path / "1.png"
    colours = []
    for number, colour in enumerate([(255, 0, 0), (0, 0, 255)]):
        Image.new("RGB", (8, 8), colour).save(file)
        os.utime(file, ns=(number, number))
        colours.append(Reference(file, "").picture((8, 8)).getpixel((0, 0)))
    assert colours == [(255, 0, 0), (0, 0, 255)]


def test_a_picture_that_was_learned_by_heart_is_named(grid, references):
    table = measure_grid(grid, references)
    usual = usual_distance(references.training)
    assert usual and usual > 0.3
    assert copies(table, usual) == [(page, row, 1) for page in (0, 1) for row in (0, 1)], "file 2 paints training picture 2"
    assert copies(table, None) == []


def test_a_copy_is_nearer_than_half_the_usual_distance(grid):
    distances = {(0, 0, 0): 0.3, (0, 0, 1): 0.24, (0, 1, 0): None, (0, 1, 1): 0.26}
    table = Table(grid.plan, {place: {"nearest": distance} for place, distance in distances.items()})
    assert copies(table, 0.5) == [(0, 0, 1)]


def test_the_usual_distance_is_a_median(tmp_path):
    """Two pairs of equal pictures and one that is like none: distances 0, 0, 0, 0 and another."""
    for number, seed in enumerate((1, 1, 2, 2, 3)):
        noise(seed).save(tmp_path / f"{number}.png")
    pictures = [Reference(tmp_path / f"{number}.png", "") for number in range(5)]
    assert usual_distance(pictures) == pytest.approx(0, abs=1e-6)
    assert usual_distance(pictures[2:]) == pytest.approx(0, abs=1e-6) and usual_distance(pictures[1:3]) > 0.3


def test_means_are_over_the_pages_that_are_drawn(grid):
    rows = {(0, 0, 0): 2.0, (1, 0, 0): 6.0, (0, 0, 1): 3.0, (1, 1, 1): 5.0}
    means = Table(grid.plan, {place: {"change": value} for place, value in rows.items()}).means("change")
    np.testing.assert_array_equal(means, [[4.0, 3.0], [np.nan, 5.0]])


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)])
def test_a_picture_is_at_no_distance_from_itself(size, tmp_path):
    noise(1).resize(size).save(tmp_path / "1.png")
    with Image.open(tmp_path / "1.png") as picture:
        assert structure_distance(picture, [Reference(tmp_path / "1.png", "")]) == pytest.approx(0, abs=1e-6)


def test_table_maps_and_curves(grid, references, tmp_path):
    report = report_grid(grid, tmp_path / "out", references)
    names = [path.name for path in (*report.sheets, *report.files)]
    assert names == ["grid.png", "grid_2.png", "figures.csv", "curves.png"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/figures.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 8 and rows[0]["lora"] == "cat-1" and rows[0]["strength"] == "strength 0.5"
    assert float(rows[2]["change"]) == pytest.approx(report.table.rows[0, 1, 0]["change"], rel=1e-4)
    assert [row["psnr"] == "" for row in rows] == [False] * 4 + [True] * 4
    assert report.notes == ("4 pictures are nearly copies of training pictures, for example the one at cat-2, strength 0.5",)
    with Image.open(tmp_path / "out/grid.png") as sheet:
        (plain,) = [page for number, page in enumerate(grid.sheets()) if number == 0]
        assert sheet.height > plain.height + 100
    means = report.table.means("change")
    assert means[0, 0] == pytest.approx(report.table.rows[0, 0, 0]["change"]) and means[1, 0] > 1.8 * means[0, 0]


def test_a_clip_model_from_a_folder_and_a_file(tmp_path, references):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file
    from tiny import write_tokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    from trainer.errors import ModelFileError
    from trainer.evaluate.clip import load_clip

    torch.manual_seed(0)
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
    text = CLIPTextConfig(**small, vocab_size=600, bos_token_id=598, eos_token_id=599, pad_token_id=599)
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=8)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)).eval()
    model.save_pretrained(tmp_path / "clip")
    write_tokenizer(tmp_path / "clip")
    picture = noise(1).resize((48, 40))
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})(picture, return_tensors="pt")
    with torch.no_grad():
        vector = model.visual_projection(model.vision_model(**pixels).pooler_output)[0]
    expected = (vector / vector.norm()).numpy()
    clip = load_clip(tmp_path / "clip")
    assert clip.of_pictures([picture])[0] == pytest.approx(expected, abs=0.02)
    words = clip.of_text("cat")
    assert words is not None and np.linalg.norm(words) == pytest.approx(1, abs=1e-5)

    parts = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name.startswith(("vision_model", "visual_proj"))}
    save_file(parts, tmp_path / "vision.safetensors")
    seeing = load_clip(tmp_path / "vision.safetensors")
    assert seeing.of_pictures([picture])[0] == pytest.approx(clip.of_pictures([picture])[0], abs=1e-5)
    assert seeing.of_text("cat") is None
    with pytest.raises(ModelFileError, match="clip: .* is neither"):
        load_clip(tmp_path / "nowhere")
    save_file({"a": torch.ones(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ModelFileError, match="is no clip_vision file"):
        load_clip(tmp_path / "wrong.safetensors")
