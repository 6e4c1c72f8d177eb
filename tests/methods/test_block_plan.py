"""Block-wise training: the plan of a family, the rates and sizes that layers get, and a whole tiny training."""

from __future__ import annotations

import dataclasses
import math

import pytest
import tiny
import torch
from torch import nn

from trainer import check, train
from trainer.config import AdapterSection, BlockSection, OptimizerSection
from trainer.errors import ConfigError
from trainer.events import BlocksPlanned, StepDone, Warned
from trainer.families import AdapterTarget
from trainer.families.sd_specs import SD15
from trainer.methods import METHODS
from trainer.methods.block_plan import plan_blocks

CONV3 = nn.Conv2d(1, 1, 3)
TRAINED = ("IN01", "M00", "OUT03", "OUT04")  # of the tiny model


def section(rank: int = 16, alpha: float = 8.0, **blocks) -> AdapterSection:
    return AdapterSection(rank=rank, alpha=alpha, blocks=BlockSection(**blocks))


def target(block: str, module: nn.Module | None = None) -> AdapterTarget:
    if block == "BASE":
        return AdapterTarget("text_encoder", "lora_te_text_model_encoder_layers_0_mlp_fc1", module or nn.Linear(1, 1))
    return AdapterTarget("unet", f"lora_unet_{SD15.blocks.blocks[block][-1]}_x", module or nn.Linear(1, 1))


def problems(**blocks) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_blocks(section(**blocks), SD15)
    return "\n".join(caught.value.problems)


def test_without_settings_all_blocks_are_alike():
    plan = plan_blocks(section(), SD15)
    for block, group in (("IN04", "unet"), ("M00", "unet"), ("BASE", "text_encoder")):
        place = plan.place(target(block))
        assert (place.group, place.multiplier, place.rank, place.alpha) == (group, 1.0, 16, 8.0)


def test_weights_multiply_the_rate_and_zero_leaves_out():
    plan = plan_blocks(section(down="sine+.25", up="0,0,0,0.5,1,1,1,1,1,1,1,1"), SD15)
    assert plan.place(target("IN04")).multiplier == pytest.approx(0.25 + math.sin(math.pi / 2 * 4 / 11))
    assert plan.place(target("IN04")).group == "unet IN04"
    assert plan.place(target("M00")).multiplier == 1.0
    assert plan.place(target("OUT03")).multiplier == 0.5
    assert plan.place(target("OUT02", CONV3)) is None
    assert (plan.place(target("BASE")).group, plan.place(target("BASE")).multiplier) == ("text_encoder", 1.0)


@pytest.mark.parametrize(("threshold", "left"), [(0.0, 11), (0.25, 9), (0.5, 6), (0.999, 1)])
def test_a_weight_that_is_not_above_the_threshold_is_zero(threshold, left):
    """linear is i/11: from i = 1, 3, 6, 11 on above the thresholds."""
    plan = plan_blocks(section(down="linear", zero_threshold=threshold), SD15)
    assert sum(plan.place(target(f"IN{i:02d}")) is not None for i in range(12)) == left
    assert plan.place(target("M00")).multiplier == 1.0


def test_negative_weights_count_as_zero():
    plan = plan_blocks(section(down="linear-0.5"), SD15)
    assert [plan.place(target(f"IN{i:02d}")) is None for i in range(12)] == [True] * 6 + [False] * 6


def test_one_list_for_all_blocks_has_the_text_encoder_first():
    plan = plan_blocks(section(weights="0.5,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0"), SD15)
    assert plan.place(target("BASE")).multiplier == 0.5
    assert [block for block in SD15.blocks.blocks if plan.place(target(block))] == ["IN04"]


def test_numbers_and_lists_of_yaml_are_texts():
    assert BlockSection(down=[1, 0.5, 0], mid=0.5, up=None) == BlockSection(down="1, 0.5, 0", mid="0.5", up="")
    with pytest.raises(ValueError):
        BlockSection(mid=True)


def test_ranks_and_alphas_by_block():
    ranks = [8] * 25
    ranks[4], ranks[5] = 32, 0
    plan = plan_blocks(section(ranks=ranks, alphas="IN04=4", conv_ranks="IN04-IN08=2", conv_alphas="1"), SD15)
    assert [plan.place(target(block)) for block in ("IN05",)] == [None]
    place, conv, other = plan.place(target("IN04")), plan.place(target("IN04", CONV3)), plan.place(target("OUT11"))
    assert (place.group, place.rank, place.alpha) == ("unet", 32, 4.0)  # rates are alike, so the group is one
    assert (other.rank, other.alpha) == (8, 8.0)
    assert (conv.rank, conv.alpha) == (2, 1.0)
    assert plan.place(target("BASE")).rank == 16


def test_ranks_of_convolutions_alone():
    """Blocks that conv_ranks does not name have no such layers; with conv_rank they have that rank."""
    plan = plan_blocks(section(ranks="0", conv_ranks="IN04=2"), SD15)
    assert [block for block in SD15.blocks.blocks if plan.place(target(block, CONV3))] == ["IN04"]
    assert plan.place(target("IN04")) is None
    plan = plan_blocks(section(conv_ranks="IN04=2").model_copy(update={"conv_rank": 8}), SD15)
    assert (plan.place(target("IN04", CONV3)).rank, plan.place(target("M00", CONV3)).rank) == (2, 8)


def test_ranks_fit_the_unit_of_dylora():
    dylora = section(ranks="M00=6", conv_ranks="IN04=3, M00=4").model_copy(update={"adapter": "dylora"})
    assert METHODS["adapter"].check_family(dylora, OptimizerSection(), SD15) == [
        "method.blocks.ranks: M00 6: no multiple of method.dylora_unit, 4",
        "method.blocks.conv_ranks: IN04 3: no multiple of method.dylora_unit, 4",
    ]


@pytest.mark.parametrize(("blocks", "message"), [
    ({"down": "1,1"}, "method.blocks.down: 2 values do not fit"),
    ({"down": "1,1", "up": "cosinus"}, "method.blocks.up: 'cosinus' is unknown"),
    ({"weights": "1,1,1"}, "method.blocks.weights: 3 values do not fit .* 16 values: IN01"),
    ({"weights": "0.5", "mid": "0.5"}, "method.blocks.weights: it stands in place of mid"),
    ({"zero_threshold": 0.5}, "method.blocks.zero_threshold: 0.5 acts on down, mid, up or weights, and none is given"),
    ({"down": "sine", "zero_threshold": 1.0}, "every block is left out: no weight is above zero_threshold 1"),
    ({"weights": "0"}, "every block is left out: no weight is above zero_threshold 0"),
    ({"ranks": "0"}, "every block is left out: every rank is 0"),
    ({"ranks": "4.5"}, "method.blocks.ranks: '4.5' is not a number"),
    ({"ranks": "-1"}, "method.blocks.ranks: '-1' is not"),
    ({"ranks": ",".join(["4"] * 26)}, "method.blocks.ranks: 26 values do not fit .* 25 values: IN00"),
    ({"ranks": ",".join(["4"] * 12)}, "method.blocks.ranks: 12 values do not fit"),
    ({"alphas": "IN04=0"}, "method.blocks.alphas: 0 for IN04; loaders read alpha 0 as no scaling"),
    ({"alphas": "-1"}, "method.blocks.alphas: '-1'"),
    ({"conv_alphas": "1"}, "method.blocks.conv_alphas: acts on 3x3 convolutions, which are trained only with"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(blocks, message):
    import re

    assert re.search(message, problems(**blocks), re.S), problems(**blocks)


def test_all_mistakes_come_at_once():
    text = problems(down="1,1", mid="x", ranks="1,1")
    assert all(f"method.blocks.{name}: " in text for name in ("down", "mid", "ranks"))


@pytest.mark.parametrize(
    ("blocks", "text", "listed"),
    [
        ({"down": "cosine"}, False, ""),
        ({"weights": "M00=0.5"}, False, "0.5, 1"),
        ({"weights": "IN00-OUT11=0.5"}, True, "0.5, 1"),
        ({"weights": "IN00-OUT11=0.5"}, False, None),
        ({"weights": "M00=0"}, True, None),
    ],
)
def test_an_optimizer_that_finds_one_rate_refuses_different_ones(blocks, text, listed):
    settings = section(**blocks).model_copy(update={"train_text_encoder": text})
    problems = METHODS["adapter"].check_family(settings, OptimizerSection(kind="prodigy", lr=1), SD15)
    assert [f"their weights are {listed}" in problem for problem in problems] == [True] * (listed is not None)
    assert METHODS["adapter"].check_family(settings, OptimizerSection(), SD15) == []


def test_a_family_without_blocks_refuses_the_settings():
    spec = dataclasses.replace(SD15, blocks=None)
    assert plan_blocks(section(), spec).table is None
    assert METHODS["adapter"].check_family(section(mid="1"), OptimizerSection(), spec) == [
        "method.blocks: Stable Diffusion 1.5 has no table of blocks; leave these settings empty"
    ]


def test_the_table_names_rates_and_idle_blocks():
    targets = [target(block) for block in ("BASE", "IN01", "IN01", "IN04", "M00")]
    plan = plan_blocks(section(down="1,0.5,1,2,0,1,1,1,1,1,1,0"), SD15)
    report = plan.report(targets, {"unet": 1e-4, "text_encoder": 5e-5})
    rows = {row.block: row for row in report.rows}
    assert [(rows[name].modules, rows[name].multiplier, rows[name].rate) for name in ("BASE", "IN01", "IN04", "M00")] == [
        (1, 1.0, 5e-5), (2, 0.5, 5e-5), (0, 0.0, 0.0), (1, 1.0, 1e-4)
    ]  # fmt: skip
    (warning,) = report.warnings
    assert "IN00, IN02, IN03, IN05" in warning and "IN04" not in warning and "IN11" not in warning
    lines = report.lines()
    assert lines[0].split() == ["block", "modules", "multiplier", "learning", "rate", "rank", "alpha"]
    assert any(line.split() == ["IN01", "2", "0.5", "5e-05", "16", "8"] for line in lines)
    with pytest.raises(ConfigError, match="every block is left out"):
        plan_blocks(section(down="zeros", mid="0", up="zeros+1"), SD15).report([target("IN01")], {"unet": 1e-4})


def test_two_text_encoders_are_two_lines():
    targets = [target("BASE"), dataclasses.replace(target("BASE"), part="text_encoder_2"), target("IN01")]
    rates = {"unet": 1e-4, "text_encoder": 5e-5, "text_encoder_2": 2e-5}
    rows = plan_blocks(section(weights="BASE=0.5"), SD15).report(targets, rates).rows
    assert [(row.block, row.modules, row.rate) for row in rows] == [("BASE", 1, 2.5e-5), ("BASE", 1, 1e-5), ("IN01", 1, 1e-4)]


def test_training_one_block_changes_only_that_block(job):
    events = []
    base = {"train_text_encoder": False}
    result = train(job(method=base | {"blocks": {"weights": "OUT03=0.5", "zero_threshold": 0}} | {"rank": 4}), listen=events.append)
    all_four = {key.split(".")[0] for key in tiny.tensors_of(result.artefact)}
    assert {SD15.blocks.block_of(key) for key in all_four} == set(TRAINED)
    only = job(method={"blocks": {"down": "zeros", "mid": 0, "up": "OUT04=0"}, "train_text_encoder": False}, save={"name": "one"})
    events.clear()
    result = train(only, listen=events.append)
    saved = tiny.tensors_of(result.artefact)
    assert (result.run_dir / "blocks.png").read_bytes().startswith(b"\x89PNG")
    assert {SD15.blocks.block_of(key) for key in saved} == {"OUT03"}
    assert all(saved[key].any() for key in saved)
    (planned,) = [event for event in events if isinstance(event, BlocksPlanned)]
    assert [(row["block"], row["modules"]) for row in planned.rows if row["modules"]] == [("OUT03", 12)]
    assert "OUT03" in planned.text
    assert {name for event in events if isinstance(event, StepDone) for name in event.lr} == {"unet OUT03"}
    assert not [event for event in events if isinstance(event, Warned) and "method.blocks" in event.text]


def test_a_block_trains_at_its_own_rate(job):
    """Adam's first step has the size of the rate, whatever the gradient: up is zero before, so |up| is the rate after."""
    config = job(
        method={"blocks": {"weights": "IN01=0.5, M00=0.25"}}, optimizer={"lr": 1e-2, "args": {"weight_decay": 0}}, train={"steps": 1}
    )
    tensors = tiny.tensors_of(train(config).artefact)
    for key, tensor in tensors.items():
        if key.endswith("lora_up.weight"):
            multiplier = {"IN01": 0.5, "M00": 0.25}.get(SD15.blocks.block_of(key), 1.0)
            assert float(tensor.abs().max()) == pytest.approx(1e-2 * multiplier, rel=1e-3)


def test_weights_of_one_change_no_number(job):
    plain = tiny.tensors_of(train(job()).artefact)
    same = tiny.tensors_of(train(job(method={"blocks": {"down": "zeros+1"}}, save={"name": "same"})).artefact)
    assert tiny.differing(plain, same) == []


def test_ranks_by_block_are_saved(job):
    config = job(method={"blocks": {"ranks": "M00=2, IN01=0", "alphas": "M00=1"}}, train={"steps": 1})
    tensors = tiny.tensors_of(train(config).artefact)
    blocks = {SD15.blocks.block_of(key) for key in tensors}
    assert blocks == {"BASE", "M00", "OUT03", "OUT04"}
    for key, tensor in tensors.items():
        middle = SD15.blocks.block_of(key) == "M00"
        if key.endswith("lora_down.weight"):
            assert tensor.shape[0] == (2 if middle else 4)
        if key.endswith("alpha"):
            assert torch.equal(tensor, torch.tensor(1.0 if middle else 4.0))


def test_check_prints_the_table_and_warns(job):
    report = check(job(method={"blocks": {"down": "cosine+.25"}}))
    text = "\n".join(report.lines())
    assert "multiplier" in text and "warning: method.blocks: IN00, IN02, IN03" in text
    (row,) = [row for row in report.as_dict()["blocks"] if row["block"] == "IN01"]
    assert row["multiplier"] == pytest.approx(0.25 + math.cos(math.pi / 2 / 11))
    assert row["rate"] == pytest.approx(1e-2 * row["multiplier"])
    assert check(job()).as_dict()["blocks"] is None
    with pytest.raises(ConfigError, match=r"method\.blocks\.down: 2 values"):
        check(job(method={"blocks": {"down": "1,1"}}))


def test_rates_of_parts_stay(job):
    method = METHODS["adapter"](section(weights="BASE=0.5, IN01=2"), OptimizerSection(lr=1e-4, text_encoder_lr=1e-5, unet_lr=1e-3))
    family, model = tiny.load_model(job().base.checkpoint)
    method.attach(family, model, seed=1)
    rates = {group.name: group.lr for group in method.groups()}
    assert rates == pytest.approx({"text_encoder": 5e-6, "unet IN01": 2e-3, "unet M00": 1e-3, "unet OUT03": 1e-3, "unet OUT04": 1e-3})
    method.detach()
