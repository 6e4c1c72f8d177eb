from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from trainer.evaluate.curves import draw_loss_map, loss_figure, moving_mean


def test_the_mean_is_centred_and_passes_over_values_that_are_not_finite():
    values = np.array([1.0, 2.0, 6.0, 4.0, 5.0])
    assert moving_mean(values, 3).tolist() == [1.5, 3.0, 4.0, 5.0, 4.5]
    assert moving_mean(np.array([1.0, np.nan, 3.0, np.inf]), 3).tolist() == [1.0, 2.0, 3.0, 3.0]
    assert np.isnan(moving_mean(np.array([np.nan]), 3)).all()


@pytest.mark.parametrize("count", [0, 1, 6, 300])
def test_a_png_appears_and_nothing_else(tmp_path, count):
    path = tmp_path / "new" / "loss.png"
    rates = {"unet": [1e-4] * count, "text_encoder": [5e-5] * count}
    losses = [0.5 if step % 7 else float("nan") for step in range(1, count + 1)]
    draw_loss_map(path, {"loss": losses, "validation": [(1, 0.4)] * (count > 5), "lr": rates}, "我的 LoRA $x_1")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 800
        assert np.asarray(image.convert("L")).min() < 80
    assert [file.name for file in path.parent.iterdir()] == ["loss.png"]


def test_an_error_leaves_the_former_picture(tmp_path):
    path = tmp_path / "loss.png"
    draw_loss_map(path, {"loss": [0.5, 0.4]})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="dimension"):
        draw_loss_map(path, {"loss": [0.5], "lr": {"unet": [1e-4, 1e-4]}})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_pyplot_is_not_used(tmp_path):
    program = (
        "import sys; from trainer.evaluate.curves import draw_loss_map;"
        f"draw_loss_map({str(tmp_path / 'a.png')!r}, {{'loss': [3, 2, 1]}});"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_many_rates_share_one_entry_of_the_legend(tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from trainer.evaluate.curves import _draw_rates

    for count, names in ((2, ["learning rate, g0", "learning rate, g1"]), (5, ["learning rates of 5 groups"])):
        figure = Figure()
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw_rates(axes, np.arange(3), {f"g{number}": [number, number, number] for number in range(count)})
        assert len(axes.lines) == count
        assert axes.get_legend_handles_labels()[1] == names


def test_losses_by_timestep_and_the_base_model_are_drawn(tmp_path):
    """Bands stand in a part of their own below; ComfyUI's own map, which has none, gives the lower picture."""
    ours = {
        "loss": [0.5] * 40,
        "bands": [[(step % 2, 1, 0.5)] for step in range(40)],
        "base": [(20, 0.6)],
        "validation": [(0, 0.6)],
        "lr": {"unet": [1e-4] * 40},
    }
    without = {name: value for name, value in ours.items() if name != "base"}
    sizes, pictures = [], []
    for name, losses in (("ours", ours), ("without", without), ("native", {"loss": [0.5] * 40})):
        draw_loss_map(tmp_path / f"{name}.png", losses)
        with Image.open(tmp_path / f"{name}.png") as image:
            sizes.append(image.size)
            pictures.append(image.tobytes())
    assert sizes[0] == sizes[1] and sizes[0][1] > sizes[2][1]
    assert pictures[0] != pictures[1]


def test_every_text_of_a_run_with_bands_has_room():
    """The widest case: two rates, the base model, validation, all timesteps over three powers of ten."""
    steps = list(range(1, 226))
    bands = [[(band, 1, 0.5 * 0.55**band) for band in range(10)]] * len(steps)
    rates = {"text_encoder": [5e-4] * len(steps), "unet": [1.5e-3] * len(steps)}
    figure = loss_figure(
        steps, [0.1] * len(steps), validation=[(0, 0.2), (225, 0.1)], lr=rates, bands=bands, base=[(50, 0.2)], title="zibu"
    )
    figure.canvas.draw()
    inside = figure.bbox
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= inside.x0 and box.x1 <= inside.x1
    lower = next(axes for axes in figure.axes if axes.get_yscale() == "log")
    heights = sorted(
        (label.get_window_extent().y0, label.get_window_extent().y1)
        for label in lower.get_yticklabels(which="both")
        if label.get_text() and lower.get_window_extent().y0 <= label.get_window_extent().y0 <= lower.get_window_extent().y1
    )
    assert len(heights) > 3
    assert all(above[0] >= below[1] for below, above in itertools.pairwise(heights))
