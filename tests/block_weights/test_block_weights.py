"""Block weights on files: by name on whole and partial LoRAs, presets, rules, random tokens, saving, the command."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import tensors_of

from trainer.block_weights import ORIGIN, read_lora, read_presets, save_weighted, weight_blocks
from trainer.cli import main
from trainer.errors import ConfigError, ModelFileError
from trainer.families.blocks import FLUX, SDXL, STABLE_DIFFUSION
from trainer.seeds import derive

TRANSFORMER = ("attn1_to_q", "attn2_to_k", "ff_net_2")


def lora(*bases: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for number, base in enumerate(bases):
        generator = torch.Generator().manual_seed(number)
        tensors[f"{base}.lora_down.weight"] = torch.randn(2, 6, generator=generator)
        tensors[f"{base}.lora_up.weight"] = torch.randn(5, 2, generator=generator)
        tensors[f"{base}.alpha"] = torch.tensor(1.0)
    return tensors


def sd(*blocks: str) -> dict[str, torch.Tensor]:
    """A Stable Diffusion LoRA over some blocks, three layers each."""
    names = []
    for block in blocks:
        start = STABLE_DIFFUSION.blocks[block][-1 if block.startswith("IN") else 2] if block != "M00" else "mid_block_attentions_0"
        names += [f"lora_unet_{start}_transformer_blocks_0_{layer}" for layer in TRANSFORMER]
    return lora("lora_te_text_model_encoder_layers_0_mlp_fc1", *names)


ATTENTION = list(STABLE_DIFFUSION.layouts[0])
WHOLE = sd(*ATTENTION)
NUMBERS = ",".join(f"{number / 10}" for number in range(17))  # BASE=0, IN01=0.1 …


def ratio_of(weighted, tensors, block: str) -> float:
    """By how much the stored change of a block has become larger, read from the tensors."""
    found = weighted.tensors()
    names = [name for name in tensors if name.endswith("up.weight") and weighted.table.block_of(name) == block]
    assert names
    ratios = {round(float((found[name] / tensors[name]).mean()), 5) if name in found else 0.0 for name in names}
    (ratio,) = ratios
    return ratio


def test_a_vector_of_ones_gives_the_same_tensors():
    weighted = weight_blocks(WHOLE)
    assert {name: id(tensor) for name, tensor in weighted.tensors().items()} == {name: id(tensor) for name, tensor in WHOLE.items()}


@pytest.mark.parametrize("vector", ["", " ", "\n"])
def test_an_empty_vector_is_one(vector):
    assert set(weight_blocks(WHOLE, vector).ratios.values()) == {1.0}


def test_seventeen_values_reach_their_blocks():
    weighted = weight_blocks(WHOLE, NUMBERS)
    for number, block in enumerate(("BASE", *ATTENTION)):
        assert ratio_of(weighted, WHOLE, block) == pytest.approx(number / 10)


@pytest.mark.parametrize("length", [16, 17, 25, 26])
def test_a_lora_over_some_blocks_gets_the_values_of_these_blocks(length):
    """Values are read by name: missing blocks shift nothing."""
    partial = sd("IN07", "OUT09")
    layout = next(layout for layout in STABLE_DIFFUSION.layouts if len(layout) == length)
    weighted = weight_blocks(partial, ",".join("0.5" if name == "OUT09" else "0.25" if name == "IN07" else "9" for name in layout))
    assert (ratio_of(weighted, partial, "IN07"), ratio_of(weighted, partial, "OUT09")) == (0.25, 0.5)
    assert ratio_of(weighted, partial, "BASE") == (9 if length in (17, 26) else 1)


def test_sdxl_and_flux():
    tensors = lora(
        "lora_te1_x", "lora_unet_input_blocks_4_1_proj_in", "lora_unet_middle_block_1_proj_in", "lora_unet_output_blocks_5_1_proj_in"
    )
    weighted = weight_blocks(tensors, "0,1,0,0,0,0.5,0,0,0,0,0,2")
    assert weighted.table is SDXL
    assert [ratio_of(weighted, tensors, block) for block in ("BASE", "IN04", "M01", "OUT05")] == [0, 1, 0.5, 2]
    tensors = lora("lora_te1_x", "lora_unet_double_blocks_18_img_mod_lin", "lora_unet_single_blocks_37_linear1")
    weighted = weight_blocks(tensors, ",".join(str(number / 8) for number in range(61)))
    assert weighted.table is FLUX
    assert [ratio_of(weighted, tensors, block) for block in ("CLIP", "D18", "S37")] == [0, 21 / 8, 59 / 8]
    assert weight_blocks(tensors, "FLUXALL").tensors().keys() == tensors.keys()


PRESETS = {  # text encoder first, then the sixteen blocks
    "NONE": [0] * 17, "ALL": [1] * 17, "ALL0.5": [0.5] * 17,
    "INS": [1] * 4 + [0] * 13, "IND": [1, 0, 0, 0, 1, 1, 1] + [0] * 10, "INALL": [1] * 7 + [0] * 10,
    "MIDD": [1, 0, 0, 0] + [1] * 8 + [0] * 5, "OUTD": [1] + [0] * 7 + [1] * 4 + [0] * 5, "OUTS": [1] + [0] * 11 + [1] * 5,
    "OUTALL": [1] + [0] * 7 + [1] * 9,
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_values_in_circulation(name):
    weighted = weight_blocks(WHOLE, name.lower())
    assert [weighted.blocks[block] for block in ("BASE", *ATTENTION)] == PRESETS[name]


def test_presets_of_users(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("# faces\nFACE: IN04-IN05=0.5, BASE=0\nINS:0.25\nKEYS:OUT:to_k:0\n", encoding="utf-8")
    presets = read_presets(file)
    assert weight_blocks(WHOLE, "face", presets=presets).blocks["IN05"] == 0.5
    assert set(weight_blocks(WHOLE, "INS", presets=presets).blocks.values()) == {0.25}
    assert 0.0 in weight_blocks(WHOLE, rules="keys", presets=presets).ratios.values()
    file.write_text("FACE 1,2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1: 'FACE 1,2' is not written as NAME:values"):
        read_presets(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_presets(tmp_path / "none.txt")


def fitting(rules: str) -> set[tuple[str, str]]:
    """(block, layer) of the modules that rules set to 0.5."""
    weighted = weight_blocks(WHOLE, "2", rules)
    half = [name for name, ratio in weighted.ratios.items() if ratio == 0.5]
    return {(STABLE_DIFFUSION.block_of(name), next((layer for layer in TRANSFORMER if layer in name), "")) for name in half}


ALL = {(block, layer) for block in ATTENTION for layer in TRANSFORMER}
DEEP = ATTENTION[3:10]  # IN05 to OUT05


@pytest.mark.parametrize(("rule", "expected"), [
    ("IN05-OUT05:attn:0.5", {(b, e) for b, e in ALL if b in DEEP and "attn" in e}),
    ("ID:IN05-OUT05:attn:0.5", {(b, e) for b, e in ALL if b in DEEP and "attn" in e}),
    ("IN01 M00:to_k,ff:0.5", {(b, e) for b, e in ALL if b in ("IN01", "M00") and e != "attn1_to_q"}),
    ("OUT:attn1:0.5", {(b, "attn1_to_q") for b in ATTENTION if b.startswith("OUT")}),
    ("NOT IN01-OUT10 BASE:attn1:0.5", {("OUT11", "attn1_to_q")}),
    ("M00:NOT attn:0.5", {("M00", "ff_net_2")}),
    ("IN01::0.5", {("IN01", e) for e in TRANSFORMER}),
    (":ff_net:0.5", {(b, "ff_net_2") for b in ATTENTION}),
    ("IN01:attn:0.5; IN01:attn2:3", {("IN01", "attn1_to_q")}),
    ("IN01:attn2:3\nIN01:attn:0.5", {("IN01", "attn1_to_q"), ("IN01", "attn2_to_k")}),
])  # fmt: skip
def test_rules(rule, expected):
    assert fitting(rule) == expected


def test_the_rules_of_the_preset_file():
    attention_off = weight_blocks(WHOLE, "1", "ATTNDEEPOFF").ratios
    assert {STABLE_DIFFUSION.block_of(name) for name, ratio in attention_off.items() if ratio == 0} == set(DEEP)
    assert all("attn" in name for name, ratio in attention_off.items() if ratio == 0)


@pytest.mark.parametrize(("vector", "rules", "message"), [
    ("1,1", "", "vector: 2 values do not fit Stable Diffusion 1 and 2.* 17 values: BASE, IN01"),
    ("INSS", "", "vector: 'INSS' is no preset; known: NONE, ALL, ALL0.5, INS"),
    ("XL-MIDD", "", "vector 'XL-MIDD': 12 values do not fit"),
    ("IN01=x", "", "vector: 'x' is not a number"),
    ("1", "IN05:attn", "rules: 'IN05:attn' is neither written as blocks:elements:ratio nor one of ATTNDEEPON"),
    ("1", "IN99:attn:1", "rules: 'IN99:attn:1': 'IN99' is no block of Stable Diffusion 1 and 2"),
    ("1", "IN00:attn:1", "rules: 'IN00:attn:1' fits no module of this file"),
    ("1", "IN01:attm:1", "fits no module"),
    ("1", "IN01:attn:much", "'much' is not a number"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(vector, rules, message):
    with pytest.raises(ConfigError, match=message):
        weight_blocks(WHOLE, vector, rules)


def test_random_tokens_depend_on_seed_and_block_alone():
    text = ",".join(["1", "R", "U", *["0"] * 14])
    first, again, other = (weight_blocks(WHOLE, text, seed=seed).blocks for seed in (5, 5, 6))
    assert first == again != other
    assert first["IN01"] == round(random.Random(derive(5, "block weight", "IN01")).uniform(0, 1), 3)
    assert first["IN02"] == round(random.Random(derive(5, "block weight", "IN02")).uniform(-0.5, 1.5), 3)
    assert weight_blocks(sd("IN02"), text, seed=5).blocks == first
    many = [weight_blocks(sd("IN01"), "U", seed=seed).blocks for seed in range(40)]
    numbers = [number for vector in many for number in vector.values()]
    assert -0.5 <= min(numbers) < -0.4 and 1.4 < max(numbers) <= 1.5
    drawn = weight_blocks(WHOLE, text, seed=5)
    assert weight_blocks(WHOLE, drawn.vector()).ratios == drawn.ratios


def test_foreign_tensors_stay_and_stuck_kinds_are_named():
    tensors = {**WHOLE, "something": torch.ones(2), "lora_unet_time_embedding_linear_1.lora_up.weight": torch.ones(2, 2)}
    weighted = weight_blocks(tensors, "0.5")
    assert weighted.tensors()["something"] is tensors["something"]
    assert weighted.ratios["lora_unet_time_embedding_linear_1"] == 1.0
    assert any("belong to no block" in note for note in weighted.notes()) and any("no known adapter" in note for note in weighted.notes())
    stuck = {**WHOLE, "lora_unet_mid_block_attentions_0_proj_in.oft_blocks": torch.ones(2, 2, 2)}
    assert weight_blocks(stuck, "M00=0")
    with pytest.raises(ConfigError, match="mid_block_attentions_0_proj_in and 0 more modules are of a kind that cannot be scaled"):
        weight_blocks(stuck, "M00=0.5")
    with pytest.raises(ModelFileError, match="no tensor belongs to a block"):
        weight_blocks(lora("lora_unet_joint_blocks_0_x"))


def test_dora_is_noted_only_where_the_ratio_is_between():
    tensors = {**WHOLE, "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.dora_scale": torch.ones(5, 1)}
    for vector, noted in (("1", False), ("M00=0", False), ("M00=0.5", True)):
        assert any("DoRA" in note for note in weight_blocks(tensors, vector).notes()) == noted


def test_saved_files_keep_their_history(tmp_path):
    source = tmp_path / "a.safetensors"
    save_file(WHOLE, source, metadata={"ss_output_name": "a", "sshs_model_hash": "old"})
    tensors, metadata = read_lora(source)
    weighted = weight_blocks(tensors, "INS", "IN01:attn1:0.5")
    save_weighted(tmp_path / "b.safetensors", weighted, metadata, source.name)
    saved, history = read_lora(tmp_path / "b.safetensors")
    assert {STABLE_DIFFUSION.block_of(name) for name in saved} == {"BASE", "IN01", "IN02", "IN04"}
    assert all(torch.equal(tensor, weighted.tensors()[name]) for name, tensor in saved.items())
    assert history["ss_output_name"] == "a" and history["sshs_model_hash"] not in ("", "old")
    origin = json.loads(history[ORIGIN])
    assert (origin["source"], origin["source_hash"], origin["rules"]) == ("a.safetensors", "old", ["IN01:attn1:0.5"])
    assert origin["vector"]["IN04"] == 1 and origin["vector"]["M00"] == 0
    before = (tmp_path / "b.safetensors").stat().st_mtime_ns
    save_weighted(tmp_path / "b.safetensors", weighted, metadata, source.name)  # the same again
    with pytest.raises(ConfigError, match="exists already and is something else"):
        save_weighted(tmp_path / "b.safetensors", weight_blocks(tensors, "OUTS"), metadata, source.name)
    assert (tmp_path / "b.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="nothing would be left"):
        save_weighted(tmp_path / "c.safetensors", weight_blocks(tensors, "NONE"), metadata, "x")
    with pytest.raises(ModelFileError, match="does not exist"):
        read_lora(tmp_path / "none.safetensors")
    again, history = read_lora(tmp_path / "b.safetensors")
    save_weighted(tmp_path / "d.safetensors", weight_blocks(again, "0.5"), history, "b.safetensors")
    latest = read_lora(tmp_path / "d.safetensors")[1]
    assert latest[f"{ORIGIN}_before"] == history[ORIGIN] and json.loads(latest[ORIGIN])["source"] == "b.safetensors"
    source.write_bytes(b"no")
    with pytest.raises(ModelFileError, match="cannot be read as a safetensors file"):
        read_lora(source)


def test_the_analysis_finds_the_block_that_was_trained():
    tensors = {
        name: tensor * (1.0 if "up_blocks_2_attentions_0" in name or name.endswith("down.weight") else 1e-3)
        for name, tensor in WHOLE.items()
    }
    lines = {line.block: line for line in weight_blocks(tensors).lines()}
    assert max(lines.values(), key=lambda line: line.norm).block == "OUT06"
    assert lines["OUT06"].share > 0.99 and sum(line.share for line in lines.values()) == pytest.approx(1)
    dense = [tensors[f"{base}.lora_up.weight"] @ tensors[f"{base}.lora_down.weight"] / 2 for base in weight_blocks(tensors).ratios
             if STABLE_DIFFUSION.block_of(base) == "OUT06"]  # fmt: skip
    together = torch.stack(dense)
    assert lines["OUT06"].norm == pytest.approx(float(together.norm()), rel=1e-6)
    assert lines["OUT06"].rms == pytest.approx(float(together.square().mean().sqrt()), rel=1e-6)
    half = {line.block: line for line in weight_blocks(tensors, "OUT06=-0.5").lines()}
    assert half["OUT06"].weighted_norm == pytest.approx(lines["OUT06"].norm / 2)


def test_the_command(tmp_path: Path, capsys):
    source, out, picture = (tmp_path / name for name in ("a.safetensors", "b.safetensors", "b.png"))
    save_file(WHOLE, source)
    assert (
        main(["blocks", str(source), "--preset", "OUTALL", "--rules", "OUT:attn:0.5", "--out", str(out), "--png", str(picture), "--json"])
        == 0
    )
    printed = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["OUT03", "3", "0.5"] for line in printed)
    result = json.loads(printed[-1])
    assert result["file"] == str(out) and result["vector"]["IN01"] == 0
    assert {STABLE_DIFFUSION.block_of(name) for name in tensors_of(out)} == {"BASE", *ATTENTION[7:]}
    from PIL import Image

    with Image.open(picture) as image:
        assert image.size[0] > 700
    assert main(["blocks", str(source), "--vector", "1,1"]) == 2
    assert "17 values: BASE" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "ending"), [("--out", ".safetensors"), ("--png", ".png")])
def test_another_ending_is_refused(tmp_path, option, ending, capsys):
    save_file(WHOLE, tmp_path / "a.safetensors")
    assert main(["blocks", str(tmp_path / "a.safetensors"), option, str(tmp_path / "b.txt")]) == 2
    shown = capsys.readouterr()
    assert f"b.txt ends in '.txt'; what is saved there ends in {ending}" in shown.err
    assert shown.out == "" and not (tmp_path / "b.txt").exists()
