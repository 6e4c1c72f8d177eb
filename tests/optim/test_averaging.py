"""Averages of the trained weights: their numbers, and that looking at them changes nothing."""

from __future__ import annotations

import pytest
import torch

from trainer.config import OptimizerSection
from trainer.optim import build_averaging, build_optimizer, check_averaging


def built(kind: str, decay: float | None, **args):
    weight = torch.nn.Parameter(torch.tensor([4.0, -2.0]))
    section = OptimizerSection(kind=kind, args=args)
    optimizer = build_optimizer(section, [{"params": [weight], "name": "part", "lr": 0.1}])
    return weight, optimizer, build_averaging(section, decay, optimizer)


def steps(weight, optimizer, averaging, numbers) -> None:
    for step in numbers:
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
        averaging.after_step(step)


def test_the_moving_average_by_hand():
    """Values 4 → 2 → 6; d is 1/10 and 2/11, then 1/2 by the limit where (1 + t)/(10 + t) is above it."""
    weight, _, averaging = built("sgd", 0.5)
    for step, value, expected in (
        (0, 2.0, 0.1 * 4 + 0.9 * 2),
        (1, 6.0, 2 / 11 * 2.2 + 9 / 11 * 6),
        (100, 0.0, 0.5 * (2 / 11 * 2.2 + 9 / 11 * 6)),
    ):
        weight.data[0] = value
        averaging.after_step(step)
        with averaging.shown():
            assert float(weight[0].detach()) == pytest.approx(expected, rel=1e-6)
        assert float(weight[0].detach()) == value


def test_weights_that_rest_keep_their_average():
    weight, _, averaging = built("sgd", 0.5)
    weight.requires_grad_(False)
    other = torch.nn.Parameter(torch.ones(1))
    averaging._parameters.append(other)
    averaging._average.append(other.detach().clone())
    weight.data.fill_(9.0)
    averaging.after_step(0)
    assert averaging.state()["average"][0].tolist() == [4.0, -2.0]


def test_schedule_free_shows_the_average_of_its_fast_weights():
    """With β1 0.9, x is the mean of z over the steps (equal rates, arXiv 2405.15682 eq. 1), and y = 0.1 z + 0.9 x."""
    weight, optimizer, averaging = built("adamw_schedulefree", None)
    fast = []
    for step in range(4):
        steps(weight, optimizer, averaging, [step])
        fast.append(optimizer.state[weight]["z"].clone())
    trained = weight.detach().clone()
    with averaging.shown():
        average = weight.detach().clone()
    torch.testing.assert_close(average, torch.stack(fast).mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trained, 0.1 * fast[-1] + 0.9 * average, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "decay"), [("adamw", 0.9), ("adamw_schedulefree", None), ("adamw", None)])
def test_looking_changes_no_bit_of_what_is_trained(kind, decay):
    plain, seen = built(kind, decay), built(kind, decay)
    for step in range(5):
        steps(*plain, [step])
        steps(*seen, [step])
        with seen[2].shown():
            pass
        with pytest.raises(ZeroDivisionError), seen[2].shown():
            raise ZeroDivisionError
        assert torch.equal(plain[0], seen[0])


@pytest.mark.parametrize(("kind", "decay"), [("adamw", 0.9), ("adamw_schedulefree", None)])
def test_a_restored_average_goes_on_bit_for_bit(kind, decay):
    whole, parts = built(kind, decay), built(kind, decay)
    steps(*whole, range(6))
    steps(*parts, range(3))
    again = built(kind, decay)
    again[0].data.copy_(parts[0].data)
    again[1].load_state_dict(parts[1].state_dict())
    again[2].restore({"average": [tensor.clone() for tensor in parts[2].state().get("average", [])]})
    steps(*again, range(3, 6))
    with whole[2].shown(), again[2].shown():
        assert torch.equal(whole[0], again[0])
    assert torch.equal(whole[0], again[0])


def test_two_averages_are_refused():
    (problem,) = check_averaging(OptimizerSection(kind="adamw_schedulefree"), 0.99)
    assert problem.startswith("train.ema: adamw_schedulefree averages the weights itself")
    assert check_averaging(OptimizerSection(kind="adamw_schedulefree"), None) == check_averaging(OptimizerSection(), 0.99) == []
