"""Dropout and the limit on the norm of adapters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainer.adapters import ADAPTERS
from trainer.adapters.dropout import DropoutRates, Drops, draw_drops
from trainer.adapters.inject import AdapterSet, fresh_layers

RANK = 8
KEYS = [(f"layer{number}", RANK) for number in range(400)]
CPU = torch.device("cpu")


def joined(adapter: str = "lora", module: nn.Module | None = None) -> tuple[nn.Module, AdapterSet]:
    module = (module or nn.Linear(12, 10)).requires_grad_(False)
    adapters = AdapterSet(fresh_layers(ADAPTERS[adapter], [("key", module)], RANK, 4.0, seed=1))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    adapters.attach()
    adapters.cast(torch.float32)
    return module, adapters


def test_the_same_seeds_drop_the_same_and_others_do_not():
    rates = DropoutRates(0.3, 0.3, 0.3)
    first, again, other = (draw_drops(rates, KEYS, seeds, CPU) for seeds in ((1, 2), (1, 2), (3, 2)))
    assert all(a.seeds == b.seeds and torch.equal(a.ranks, b.ranks) for a, b in zip(first, again, strict=True))
    assert [left_out(a) for a in first] == [left_out(a) for a in again]
    assert [left_out(a)[0] for a in first] != [left_out(a)[0] for a in other]
    assert [left_out(a)[1] for a in first] == [left_out(a)[1] for a in other]
    assert first[0].seeds[0] != other[0].seeds[0] and first[0].seeds[1] == other[0].seeds[1]
    assert len({seed for drops in first for seed in drops.seeds}) == 2 * len(KEYS)  # each layer drops its own
    assert not torch.equal(first[0].ranks[0], other[0].ranks[0])
    assert torch.equal(first[0].ranks[1], other[0].ranks[1])  # the second sample is the same


def left_out(drops: Drops) -> list[bool]:
    """Of two samples, which do without the adapter."""
    return [drops.whole] * 2 if drops.without is None else drops.without.tolist()


def test_shares_and_scales_are_those_asked_for():
    drops = draw_drops(DropoutRates(0.2, 0.25, 0.4), KEYS, (7, 8), CPU)
    ranks = torch.stack([drop.ranks for drop in drops])
    assert ranks.shape == (400, 2, RANK) and sorted(ranks.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert float((ranks == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert sum(sum(left_out(drop)) for drop in drops) / 800 == pytest.approx(0.4, abs=0.06)
    assert sum(drop.whole for drop in drops) / 400 == pytest.approx(0.4**2, abs=0.06)
    dropped = drops[0].of(torch.ones(4, 100, 100))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert dropped.max().item() == pytest.approx(1.25)
    assert torch.equal(dropped, drops[0].of(torch.ones(4, 100, 100)))  # as a recomputed pass needs it
    assert torch.equal(dropped[0], dropped[1]) and not torch.equal(dropped[1], dropped[2])  # two rows of each sample


def test_dropped_ranks_take_no_part_in_their_sample():
    module, adapters = joined()
    (layer,) = adapters.layers
    down, up = (layer.tensors[f"lora_{name}.weight"] for name in ("down", "up"))
    kept = torch.tensor([[2.0] * 4 + [0.0] * 4, [0.0] * 4 + [2.0] * 4])
    layer.drops = Drops((1, 2), ranks=kept)
    x = torch.randn(2, 3, 12)
    for sample, ranks in ((0, slice(0, 4)), (1, slice(4, 8))):
        delta = up[:, ranks] @ down[ranks] * 2 * layer.scale
        expected = F.linear(x[sample], module.weight + delta, module.bias)
        torch.testing.assert_close(module(x)[sample], expected, rtol=1e-4, atol=1e-4)
    rows = module(torch.cat([x[:1], x[:1], x[1:], x[1:]]))  # a sample that is read in two parts
    torch.testing.assert_close(rows[0], rows[1])


def test_dropped_ranks_of_a_convolution():
    module, adapters = joined(module=nn.Conv2d(6, 5, 3, padding=1))
    (layer,) = adapters.layers
    x, kept = torch.randn(2, 6, 4, 4), torch.tensor([[1.0] * RANK, [0.0] * RANK])
    with_all = module(x)
    layer.drops = Drops((1, 2), ranks=kept)
    torch.testing.assert_close(module(x)[0], with_all[0])
    torch.testing.assert_close(module(x)[1], type(module).forward(module, x)[1])


@pytest.mark.parametrize("adapter", ["loha", "lokr"])
def test_dropped_inputs(adapter):
    module, adapters = joined(adapter)
    (layer,) = adapters.layers
    x = torch.randn(4, 12)
    plain = type(module).forward(module, x)
    layer.drops = Drops((3, 4), numbers=0.5)
    expected = plain + F.linear(layer.drops.of(x), layer.delta())
    torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("module", [nn.Linear(12, 10), nn.Conv2d(6, 5, 3)], ids=["linear", "conv"])
@pytest.mark.parametrize("adapter", ["lora", "dylora"])
def test_a_lora_drops_what_its_first_matrix_gives(adapter, module, monkeypatch):
    """sd-scripts' LoRAModule.forward: org_forward(x) + lora_up(dropout(lora_down(x))) * multiplier * scale."""
    module, adapters = joined(adapter, module)
    (layer,) = adapters.layers
    down, up = (layer.tensors[f"lora_{name}.weight"] for name in ("down", "up"))
    x = torch.randn(4, 12) if isinstance(module, nn.Linear) else torch.randn(4, 6, 4, 4)
    factors = (torch.rand(4, RANK, *[1] * (x.dim() - 2)) >= 0.5) * 2.0
    monkeypatch.setattr(Drops, "of", lambda _self, rows: rows * factors)
    layer.drops = Drops((3, 4), numbers=0.5)

    operation = F.linear if isinstance(module, nn.Linear) else F.conv2d
    expected = operation(x, module.weight, module.bias) + operation(operation(x, down) * factors, up) * (4.0 / RANK)
    torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)
    adapters.detach()


@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_a_dropped_layer(adapter):
    module, adapters = joined(adapter)
    x = torch.randn(4, 12)
    adapters.layers[0].drops = Drops((3, 4), whole=True)
    assert torch.equal(module(x), type(module).forward(module, x))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("module", [nn.Linear(12, 10), nn.Conv2d(6, 5, 3)], ids=["linear", "conv"])
@pytest.mark.parametrize("adapter", ["lora", "loha", "lokr", "dylora"])
def test_samples_in_portions_drop_what_they_drop_together(adapter, module, dora):
    """Three samples of two rows each; the layer is left out by some of them."""
    module.requires_grad_(False)
    adapters = AdapterSet(fresh_layers(ADAPTERS[adapter], [("key", module)], RANK, 4.0, seed=1, with_magnitude=dora))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    adapters.attach()
    adapters.cast(torch.float32)
    rates = DropoutRates(0.3, 0.3 * ADAPTERS[adapter].drops_ranks, 0.5)
    x = torch.randn(6, 12) if isinstance(module, nn.Linear) else torch.randn(6, 6, 4, 4)
    plain, seen = type(module).forward(module, x), set()
    for seeds in ((1, 2, 3), (4, 5, 6), (7, 8, 9)):
        adapters.drop(rates, seeds)
        together = module(x)
        for number, seed in enumerate(seeds):
            adapters.drop(rates, [seed])
            own = slice(2 * number, 2 * number + 2)
            torch.testing.assert_close(module(x[own]), together[own])
            seen.add(torch.equal(together[own], plain[own]))
            assert adapters.layers[0].drops.whole == torch.equal(together[own], plain[own])
    adapters.detach()
    assert seen == {True, False}


def test_without_seeds_or_rates_nothing_is_dropped():
    module, adapters = joined()
    x = torch.randn(4, 12)
    full = module(x)
    for rates, seeds in ((DropoutRates(0.9, 0.9, 0.9), None), (DropoutRates(), (1, 2, 3, 4))):
        adapters.drop(rates, seeds)
        assert torch.equal(module(x), full)
    adapters.drop(DropoutRates(0.9, 0.9, 0.0), (1, 2, 3, 4))
    assert not torch.equal(module(x), full)


@pytest.mark.parametrize("module", [nn.Linear(12, 10), nn.Conv2d(6, 5, 3)], ids=["linear", "conv"])
@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_a_long_change_is_scaled_down_and_a_short_one_stays(adapter, module):
    _, adapters = joined(adapter, module)
    (layer,) = adapters.layers
    before, state = layer.delta(), {name: tensor.clone() for name, tensor in adapters.state().items()}
    length = float(before.norm())
    assert int(adapters.limit(length * 1.01)) == 0
    assert all(torch.equal(tensor, state[name]) for name, tensor in adapters.state().items())
    assert int(adapters.limit(length / 4)) == 1
    torch.testing.assert_close(layer.delta(), before / 4, rtol=1e-3, atol=1e-4)
    adapters.detach()


def test_both_matrices_of_a_lora_share_the_scaling():
    """As in kohya's scale_weight_norms: each by the square root of the ratio."""
    _, adapters = joined()
    (layer,) = adapters.layers
    before = {name: tensor.detach().clone() for name, tensor in layer.tensors.items()}
    adapters.limit(float(layer.delta().norm()) / 9)
    for name, tensor in layer.tensors.items():
        torch.testing.assert_close(tensor.detach(), before[name] / 3, rtol=1e-4, atol=1e-6)
