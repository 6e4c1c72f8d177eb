from __future__ import annotations

import math

import pytest
import torch

from trainer.config import ScheduleSection
from trainer.optim import SCHEDULES, check_schedule, lr_multiplier, warmup_steps


def values(kind: str, steps: list[int], total: int = 110, **fields) -> list[float]:
    section = ScheduleSection(kind=kind, **{"warmup": 10, **fields})
    return [lr_multiplier(section, step, total) for step in steps]


# total 110, warm-up 10: steps 0 and 9 are in the warm-up (1/11 and 10/11), 10 is the first at the full rate, 60 the
# middle of the remaining 100, 109 the last (progress 0.99).
@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("constant_with_warmup", {}, [1 / 11, 10 / 11, 1.0, 1.0, 1.0]),
        ("constant", {}, [1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", {}, [1 / 11, 10 / 11, 1.0, 0.5, 0.01]),
        ("polynomial", {"power": 2}, [1 / 11, 10 / 11, 1.0, 0.25, 0.0001]),
        ("polynomial", {"power": 1}, [1 / 11, 10 / 11, 1.0, 0.5, 0.01]),
        ("cosine", {}, [1 / 11, 10 / 11, 1.0, 0.5, 0.000246719817]),
        ("cosine_with_restarts", {"cycles": 1}, [1 / 11, 10 / 11, 1.0, 0.5, 0.000246719817]),
        ("cosine_with_restarts", {"cycles": 2}, [1 / 11, 10 / 11, 1.0, 1.0, 0.000986635786]),
    ],
)
def test_values_by_hand(kind, fields, expected):
    assert values(kind, [0, 9, 10, 60, 109], **fields) == pytest.approx(expected, abs=1e-9)


def test_restarts_are_where_the_cycles_are():
    assert values("cosine_with_restarts", [10, 35, 59, 60, 85], cycles=2) == pytest.approx(
        [1.0, 0.5, 0.5 * (1 + math.cos(math.pi * 0.98)), 1.0, 0.5]
    )


@pytest.mark.parametrize("source", ["transformers", "diffusers.optimization"])
@pytest.mark.parametrize("kind", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"])
@pytest.mark.parametrize("cycles", [1, 3])
def test_after_the_warm_up_the_values_are_those_of(source, kind, cycles):
    import importlib

    get_scheduler = pytest.importorskip(source) and importlib.import_module(source).get_scheduler
    total, warmup = 50, 8
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    if source == "transformers":
        extra = {"scheduler_specific_kwargs": {"num_cycles": cycles}} if kind == "cosine_with_restarts" else {}
    else:
        extra = {"num_cycles": cycles}
    theirs = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=total, **extra)
    section = ScheduleSection(kind=kind, warmup=warmup, cycles=cycles)
    for step in range(total):
        if step >= warmup:
            assert lr_multiplier(section, step, total) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_polynomial_is_torchs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=30, power=1.7)
    for step in range(30):
        ours = lr_multiplier(ScheduleSection(kind="polynomial", power=1.7, warmup=0), step, 30)
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0, 0.05, 0.5, 1, 5, 1000])
def test_every_schedule_stays_between_0_and_1_and_never_wastes_the_first_step(kind, total, warmup):
    section = ScheduleSection(kind=kind, warmup=warmup, cycles=3, power=2)
    multipliers = [lr_multiplier(section, step, total) for step in range(total + 2)]
    assert all(0 <= value <= 1 for value in multipliers)
    assert all(value > 0 for value in multipliers[:1])


@pytest.mark.parametrize(
    ("warmup", "total", "expected"),
    [
        (0, 100, 0),
        (0.05, 100, 5),
        (0.07, 100, 7),
        (0.05, 9, 0),
        (0.05, 10, 1),
        (1, 100, 1),
        (20, 100, 20),
        (500, 100, 100),
    ],
)
def test_warm_up_is_a_part_below_1_and_steps_from_1_on(warmup, total, expected):
    assert warmup_steps(ScheduleSection(warmup=warmup), total) == expected


def test_constant_has_no_warm_up():
    assert warmup_steps(ScheduleSection(kind="constant", warmup=20), 100) == 0


def test_defaults_pass_without_a_word():
    for kind in SCHEDULES:
        assert check_schedule(ScheduleSection(kind=kind), 1000) == ([], [])
    assert check_schedule(ScheduleSection(kind="constant", warmup=0, cycles=1, power=1.0)) == ([], [])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "constant", "warmup": 100}, ["schedule.warmup: 100 has no effect", "constant_with_warmup"]),
        ({"kind": "cosine", "cycles": 3}, ["schedule.cycles: 3 has no effect with cosine", "cosine_with_restarts"]),
        ({"kind": "linear", "power": 2}, ["schedule.power: 2 has no effect with linear", "polynomial"]),
        ({"kind": "linear", "warmup": 100}, ["schedule.warmup: 100 covers all 60 steps"]),
    ],
)
def test_a_setting_without_effect_is_a_warning(fields, expected):
    problems, warnings = check_schedule(ScheduleSection(**fields), 60)
    assert problems == []
    assert len(warnings) == 1
    assert all(text in warnings[0] for text in expected)


def test_an_unknown_schedule_lists_the_known_ones():
    (problem,), warnings = check_schedule(ScheduleSection(kind="cosin"))
    assert warnings == []
    assert "schedule.kind: 'cosin' is unknown; did you mean 'cosine'?" in problem
    assert all(kind in problem for kind in SCHEDULES)


def test_a_warm_up_of_one_and_a_half_steps_is_a_problem():
    (problem,), _ = check_schedule(ScheduleSection(warmup=1.5))
    assert "schedule.warmup: 1.5 is neither" in problem
