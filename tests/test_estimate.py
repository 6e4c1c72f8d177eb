"""The memory estimate against what a real forward pass keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from trainer.estimate import MIB, estimate
from trainer.feed import Batch
from trainer.methods import METHODS
from trainer.objective import batch_loss


def kept_bytes(config, side: int) -> int:
    """Distinct memory that autograd keeps on the CPU, but for the weights."""
    family, model = tiny.load_model(Path(config.base.checkpoint))
    method = METHODS["adapter"](config.method, config.optimizer)
    method.attach(family, model, 1)
    method.before_forward()
    networks = (model.unet, *model.text_encoders.values())
    weights = {parameter.data_ptr() for network in networks for parameter in network.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = Batch(("a", "b"), ["a", "b"], torch.randn(2, 4, side, side), None, None, (1, 2))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = batch_loss(family, model, batch).sum()
    method.detach()
    return sum(kept.values()) if loss is not None else 0


def estimated(config, side: int) -> float:
    family, model = tiny.load_model(Path(config.base.checkpoint), device="meta")
    return estimate(config, family, model, (8 * side, 8 * side)).activations_mib * MIB


@pytest.mark.parametrize("side", [8, 32])
def test_activations_are_those_that_a_forward_pass_keeps(job, side):
    assert estimated(job(), side) == pytest.approx(kept_bytes(job(), side), rel=0.05)


def test_attention_scores_are_not_counted(job):
    """They would grow with the fourth power of the side."""
    small, large = estimated(job(), 32), estimated(job(), 64)
    assert large < 4 * small
