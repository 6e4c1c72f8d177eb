"""Every kind of adapter on a tiny model: it learns, and its estimate is the size of its file."""

from __future__ import annotations

import pytest
import tiny
import torch

from trainer.config import AdapterSection, OptimizerSection
from trainer.feed import Batch
from trainer.methods import METHODS
from trainer.objective import batch_loss

KINDS = {
    "locon": {"conv_rank": 4},
    "locon tucker": {"conv_rank": 4, "tucker": True},
    "loha": {"adapter": "loha", "conv_rank": 4},
    "loha tucker": {"adapter": "loha", "conv_rank": 4, "tucker": True},
    "lokr": {"adapter": "lokr", "rank": 2, "alpha": 2.0, "conv_rank": 2, "lokr_factor": 4},
    "lokr whole": {"adapter": "lokr"},
    "dylora": {"adapter": "dylora", "dylora_unit": 2},
}


@pytest.fixture(scope="module")
def loaded(base):
    return tiny.load_model(base)


@pytest.mark.parametrize(("kind", "dora"), [*((kind, False) for kind in KINDS), ("locon", True), ("lokr", True)])
def test_ten_steps_on_one_picture_lower_the_loss(loaded, kind, dora):
    family, model = loaded
    method = METHODS["adapter"](AdapterSection(**{"rank": 8, "alpha": 8.0, "dora": dora, **KINDS[kind]}), OptimizerSection())
    method.attach(family, model, seed=1)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    batch = Batch(("picture",), ["a cat"], latents, None, None, (7,))
    parameters = [parameter for group in method.groups() for parameter in group.parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    losses = []
    try:
        for step in range(10):
            method.before_step(step, 10)
            method.before_forward([step])
            loss = batch_loss(family, model, batch).sum()
            losses.append(float(loss.detach()))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert min(losses[-3:]) < losses[0] * 0.9
        assert method.silent() == []
        saved = method.artefact(torch.float32)
        assert sum(tensor.numel() for name, tensor in saved.items() if not name.endswith(".alpha")) == sum(map(torch.numel, parameters))
        assert any(name.endswith(".dora_scale") for name in saved) == dora
    finally:
        method.detach()
    with torch.no_grad():
        assert float(batch_loss(family, model, batch)) == losses[0]


def test_a_dylora_step_is_a_function_of_seed_and_step(loaded):
    """Validation and drawing use all ranks."""
    family, model = loaded

    def ranks(seed: int, steps: list[int | None]) -> list[int]:
        method = METHODS["adapter"](AdapterSection(adapter="dylora", rank=8, dylora_unit=2), OptimizerSection())
        method.attach(family, model, seed)
        found = []
        for step in steps:
            if step is not None:
                method.before_step(step, 40)
            method.before_forward(None if step is None else [step])
            sizes = {len(layer.live["lora_down.weight"]) for adapters in method._sets.values() for layer in adapters.layers}
            assert len(sizes) == 1
            found += sizes
        method.detach()
        return found

    first = ranks(1, list(range(40)))
    assert first[10:20] == ranks(1, list(range(10, 20))) and first != ranks(2, list(range(40)))
    assert set(first) == {2, 4, 6, 8}
    assert ranks(1, [None, 3, None])[::2] == [8, 8]


@pytest.mark.parametrize(("adapter", "alpha", "warned"), [("lokr", 3.0, True), ("lokr", 8.0, False), ("lora", 3.0, False)])
def test_an_alpha_that_has_no_layer_to_act_on_is_said(loaded, adapter, alpha, warned):
    """LoKr keeps both factors whole at a high rank; 8 is the default, which nobody set."""
    family, model = loaded
    method = METHODS["adapter"](AdapterSection(adapter=adapter, rank=64, alpha=alpha), OptimizerSection())
    warnings = method.attach(family, model, seed=1)
    method.detach()
    assert [text.startswith("method.alpha: 3 has no effect on") for text in warnings] == [True] * warned
