"""Which device a training takes, and steps without gradients."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.errors import ConfigError
from trainer.precision import LossScaler, resolve_device


@pytest.mark.parametrize(("available", "device"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_an_accelerator_that_is_there(monkeypatch, available, device):
    """A torch that was built for CUDA, as most are, names it as its accelerator on machines without a GPU too."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("auto").type == device


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigError, match=rf"train\.device: '{name}' cannot be used .* try auto or cpu"):
        resolve_device(name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_in_which_nothing_took_part_changes_nothing(dtype):
    """Module dropout may leave out every layer that is trained."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), LossScaler(torch.device("cpu"), dtype)
    scaler.backward(torch.ones(()))
    scaler.step(optimizer, 1.0)
    assert weight.tolist() == [1.0, 1.0]
    scaler.backward(weight.sum())
    scaler.step(optimizer, 0.0)
    assert weight.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("limit", "length"), [(0.0, 5.0), (0.5, 0.5), (1.0, 1.0), (10.0, 5.0)])
def test_gradients_are_limited_in_their_own_length(dtype, limit, length):
    """3 and 4 have the length 5, whatever the loss is scaled by; a limit of 0 is none."""
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), LossScaler(torch.device("cpu"), dtype)
    scaler.backward((weight * torch.tensor([3.0, 4.0])).sum())
    scaler.step(optimizer, limit)
    assert weight.tolist() == pytest.approx([-0.6 * length, -0.8 * length], rel=1e-5)


def test_a_restored_scale_is_the_one_that_was_saved():
    """An overflown gradient changes no weight and halves the scale."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), LossScaler(torch.device("cpu"), torch.float16)
    fresh = scaler.state()["scale"]
    scaler.backward((weight * math.inf).sum())
    scaler.step(optimizer, 1.0)
    assert weight.tolist() == [0.0] and scaler.state()["scale"] == fresh / 2
    other = LossScaler(torch.device("cpu"), torch.float16)
    other.restore(scaler.state())
    assert other.state() == scaler.state()
    plain = LossScaler(torch.device("cpu"), torch.float32)
    plain.restore(plain.state())
    assert plain.state() == {}
