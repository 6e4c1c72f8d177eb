"""The block analysis: what is tried, what the numbers mean, and that it finds the one block that was trained."""

from __future__ import annotations

import csv
import json
from io import StringIO

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from trainer import train
from trainer.block_weights import read_lora, weight_blocks
from trainer.cli import main
from trainer.errors import ConfigError
from trainer.evaluate.block_effects import answer, ask
from trainer.evaluate.effect_pictures import BRIGHTEST, contact_sheet, effect_charts, heat_map
from trainer.events import ignore

STARTS = {"IN01": "down_blocks_0_attentions_0", "M00": "mid_block_attentions_0", "OUT03": "up_blocks_1_attentions_0"}
KEYS = {block: f"lora_unet_{start}_proj_in" for block, start in STARTS.items()} | {"BASE": "lora_te_text_model_encoder_layers_0_mlp_fc1"}
# Rows of a picture of ten rows that a block paints, and how bright.
PAINTED = {"BASE": (0, 1), "IN01": (1, 5), "M00": (5, 10)}


def file(*blocks: str) -> dict[str, torch.Tensor]:
    return {f"{KEYS[block]}.{side}": torch.ones(shape) for block in blocks
            for side, shape in (("lora_up.weight", (3, 2)), ("lora_down.weight", (2, 4)))}  # fmt: skip


def paint(lora, seeds):
    """Ten rows of ten pixels: each block's rows are 100 · weight bright, on a ground that depends on the seed."""
    for seed in seeds:
        rows = np.full((10, 10, 3), seed, np.uint8)
        for block, (first, end) in PAINTED.items():
            rows[first:end] += np.uint8(100 * lora.blocks[block])
        yield Image.fromarray(rows)


def asked(*blocks: str, vector: str = "1", **options):
    return ask(weight_blocks(file(*blocks), vector), **options)


def shares(effects) -> dict[tuple[str, float], tuple[float, ...]]:
    return {(effect.trial.name, effect.trial.ratio): effect.changed for effect in effects.effects}


def test_each_block_is_changed_alone_and_compared_at_its_seed():
    events = []
    effects = answer(asked("OUT03", "M00", "IN01", "BASE", seeds=(7, 90), ratios=(0, 0.9)), paint, events.append)
    assert shares(effects) == {
        ("BASE", 0): (0.1, 0.1), ("BASE", 0.9): (0.0, 0.0),  # a change of 10 is not above 20
        ("IN01", 0): (0.4, 0.4), ("IN01", 0.9): (0.0, 0.0),
        ("M00", 0): (0.5, 0.5), ("M00", 0.9): (0.0, 0.0),
        ("OUT03", 0): (0.0, 0.0), ("OUT03", 0.9): (0.0, 0.0),
    }  # fmt: skip
    assert [(event.done, event.total) for event in events] == [(number, 18) for number in range(1, 19)]
    assert effects.finished


def test_sets_change_together_and_the_threshold_counts():
    question = asked("BASE", "IN01", "M00", sets="base, IN01-M00\nM00 BASE", ratios=(0.85,), threshold=14)
    assert shares(answer(question, paint, ignore)) == {("BASE", 0.85): (0.1,), ("IN01-M00", 0.85): (0.9,), ("M00 BASE", 0.85): (0.6,)}
    assert question.trials[1].blocks == ("IN01", "M00")


def test_the_reference_is_the_lora_as_it_is_weighted():
    """With every block at 0 and one at a time at 1, each block is seen alone."""
    effects = answer(asked("BASE", "IN01", vector="0", ratios=(1, 0)), paint, ignore)
    assert shares(effects) == {("BASE", 1): (0.1,), ("BASE", 0): (0.0,), ("IN01", 1): (0.4,), ("IN01", 0): (0.0,)}


def test_a_trial_that_changes_no_weight_is_not_drawn():
    drawn = []

    def counted(lora, seeds):
        drawn.append(dict(lora.blocks))
        return paint(lora, seeds)

    answer(asked("IN01", "M00", ratios=(1, 0)), counted, ignore)
    assert [(vector["IN01"], vector["M00"]) for vector in drawn] == [(1, 1), (0, 1), (1, 0)]


def test_the_suggested_vector_leaves_out_what_is_hardly_seen():
    """Changes of 10 %, 40 %, 50 % and 0 %: a tenth of the largest is 5 %, so only OUT03 falls below it."""
    effects = answer(asked("BASE", "IN01", "M00", "OUT03"), paint, ignore)
    suggested = effects.suggestion()
    assert [name for name, ratio in suggested.items() if not ratio] == ["OUT03"]
    again = weight_blocks(file("BASE", "IN01", "M00", "OUT03"), effects.vector())
    assert again.blocks == suggested and effects.vector().startswith("BASE-OUT02=1, OUT03=0")
    nothing = answer(asked("OUT03"), paint, ignore)
    assert nothing.suggestion() == {} and "no block changed a pixel" in nothing.text()
    assert weight_blocks(file("OUT03"), nothing.vector()).blocks == nothing.question.lora.blocks


def test_tables():
    effects = answer(asked("IN01", "M00", seeds=(1, 2)), paint, ignore)
    lines = effects.text().splitlines()
    assert "more than 20 of 255" in lines[0] and "2 seeds" in lines[0]
    assert lines[2].split() == ["IN01", "0", "40.00%", "40.00%", "40.00%", "50.00%"]
    rows = list(csv.DictReader(StringIO(effects.csv())))
    assert [(row["blocks"], row["weight"], row["seed"], float(row["changed"])) for row in rows] == [
        ("IN01", "0", "1", 0.4), ("IN01", "0", "2", 0.4), ("M00", "0", "1", 0.5), ("M00", "0", "2", 0.5),
    ]  # fmt: skip
    json.dumps(effects.as_dict())


def test_pictures():
    effects = answer(asked("IN01", "M00", seeds=(1, 2), ratios=(0, 0.5)), paint, ignore)
    charts = effect_charts(effects, "title")
    assert len(charts) == 2 and charts[0].size == charts[1].size
    assert min(contact_sheet(effects, "title", "note").size) > 300
    before, after = Image.new("RGB", (2, 1)), Image.new("RGB", (2, 1))
    after.putpixel((1, 0), (0, BRIGHTEST, 0))
    dark, bright = (np.asarray(heat_map(before, after))[0].astype(int).sum(-1)).tolist()
    assert dark < 30 and bright > 600


def test_a_stop_keeps_what_is_whole():
    def stopped(lora, seeds):
        pictures = list(paint(lora, seeds))
        return pictures[:1] if lora.blocks["M00"] == 0 else pictures

    effects = answer(asked("IN01", "M00", "OUT03", seeds=(1, 2)), stopped, ignore)
    assert [effect.trial.name for effect in effects.effects] == ["IN01"] and not effects.finished
    nothing = answer(asked("IN01", seeds=(1, 2)), lambda lora, seeds: [], ignore)
    assert not nothing.finished and nothing.references == ()
    assert "blocks" in nothing.text() and effect_charts(nothing, "t") == []


@pytest.mark.parametrize(("options", "message"), [
    ({"sets": "IN99"}, "sets: 'IN99' has no block of Stable Diffusion 1 and 2; blocks: BASE, IN00"),
    ({"sets": "IN01, OUT03"}, "sets: 'OUT03' has no layer in this file; its blocks: IN01, M00"),
    ({"ratios": ()}, "ratios: give at least one"),
    ({"seeds": ()}, "seeds: give at least one"),
    ({"threshold": 255}, "threshold: 255 is not from 0 to below 255"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        asked("IN01", "M00", **options)


def test_a_kind_that_cannot_be_scaled_is_refused_before_anything_is_drawn():
    tensors = file("M00") | {f"{KEYS['IN01']}.oft_blocks": torch.ones(2, 2, 2)}
    assert ask(weight_blocks(tensors), ratios=(0, 1))
    with pytest.raises(ConfigError, match="cannot be scaled"):
        ask(weight_blocks(tensors), ratios=(0.5,))


def test_the_command_finds_the_block_that_was_trained(job, tmp_path, capsys):
    """All blocks of the tiny model are trained, the others with a hundredth of the rate."""
    weights = "BASE=0.01, IN01=0.01, M00=0.01, OUT04=0.01"
    sample = {"steps": 3, "cfg": 1}
    lora = train(job(method={"blocks": {"weights": weights}}, optimizer={"lr": 0.05}, sample=sample)).artefact
    options = ["--prompt", "colour 1", "--seeds", "1,2", "--dir", str(tmp_path / "effects"), "--json"]
    assert main(["blocks", str(lora), *options]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    means = {effect["blocks"][0]: effect["mean"] for effect in result["effects"]}
    assert set(means) == {"BASE", "IN01", "M00", "OUT03", "OUT04"}
    assert means.pop("OUT03") > 0.02 and max(means.values()) < 0.001
    vector = weight_blocks(read_lora(lora)[0], result["suggested"]).blocks
    assert [name for name in ("BASE", "IN01", "M00", "OUT03", "OUT04") if vector[name]] == ["OUT03"]
    assert {path.name for path in (tmp_path / "effects").iterdir()} == {"effects.txt", "effects.csv", "chart_1.png", "sheet.png"}


def test_the_command_names_what_is_missing(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    save_file(file("IN01"), path)
    assert main(["blocks", str(path), "--prompt", "x"]) == 2
    assert "name the base model with --base" in capsys.readouterr().err
    for idle in (["--ratios", "0"], ["--base", "b"], ["--set", "sample.steps=2"]):
        assert main(["blocks", str(path), *idle]) == 2
        assert f"{idle[0]}: acts only together with --prompt" in capsys.readouterr().err


def test_a_foreign_file_with_a_named_base(base, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    save_file({f"{KEYS['M00']}.lora_{side}.weight": torch.randn(shape) for side, shape in (("up", (64, 2)), ("down", (2, 64)))}, path)
    options = ["--base", str(base), "--prompt", "x", "--set", "sample.size=64", "--set", "sample.steps=1", "--set", "train.precision=fp32"]
    assert main(["blocks", str(path), *options, "--dir", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["effects"][0]["mean"] > 0.1


def test_a_folder_that_cannot_be_made_is_said_before_the_model_loads(tmp_path, capsys):
    path, taken = tmp_path / "a.safetensors", tmp_path / "taken"
    save_file(file("IN01"), path)
    taken.touch()
    assert main(["blocks", str(path), "--prompt", "x", "--base", str(tmp_path / "missing"), "--dir", str(taken)]) == 1
    assert "taken could not be written" in capsys.readouterr().err
