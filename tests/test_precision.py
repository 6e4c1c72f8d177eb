"""Which device a training takes."""

from __future__ import annotations

import pytest
import torch

from trainer.errors import ConfigError
from trainer.precision import resolve_device


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
