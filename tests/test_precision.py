"""Which device a training takes, and steps without gradients."""

from __future__ import annotations

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
