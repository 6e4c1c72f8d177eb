"""The formula of each algorithm, written out with numbers of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from trainer.adapters import ADAPTERS, LayerShape
from trainer.adapters.dora import MAGNITUDE
from trainer.adapters.inject import AdapterLayer, AdapterSet, fresh_layers
from trainer.adapters.lokr import split

LINEAR, CONV, POINT = LayerShape(10, 12), LayerShape(10, 12, (3, 3)), LayerShape(10, 12, (1, 1))
LORA, LOHA, LOKR, DYLORA = (ADAPTERS[name] for name in ("lora", "loha", "lokr", "dylora"))


def drawn(adapter, shape: LayerShape, rank: int) -> dict[str, torch.Tensor]:
    """Tensors of the adapter's shapes with random values, in float64."""
    generator = torch.Generator().manual_seed(3)
    fresh = adapter.init(shape, rank, generator)
    return {name: torch.randn(tensor.shape, generator=generator, dtype=torch.float64) for name, tensor in fresh.items()}


def sizes(adapter, shape: LayerShape, rank: int) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in adapter.init(shape, rank, torch.Generator()).items()}


@pytest.mark.parametrize("shape", [LINEAR, POINT, CONV])
def test_lora_is_the_sum_over_its_ranks(shape):
    tensors = drawn(LORA, shape, 4)
    down, up = tensors["lora_down.weight"], tensors["lora_up.weight"].flatten(1)
    expected = torch.zeros(shape.weight, dtype=torch.float64)
    for rank in range(4):
        for output in range(10):
            expected[output] += up[output, rank] * down[rank]
    torch.testing.assert_close(LORA.delta(shape, tensors), expected)


def test_lora_in_tucker_form_is_three_convolutions():
    adapter = replace(LORA, tucker=True)
    assert sizes(adapter, CONV, 4) == {
        "lora_down.weight": (4, 12, 1, 1),
        "lora_mid.weight": (4, 4, 3, 3),
        "lora_up.weight": (10, 4, 1, 1),
    }
    assert set(sizes(adapter, LINEAR, 4)) == set(sizes(adapter, POINT, 4)) == {"lora_down.weight", "lora_up.weight"}
    tensors, x = drawn(adapter, CONV, 4), torch.randn(2, 12, 5, 5, dtype=torch.float64)
    chain = x
    for name in ("lora_down.weight", "lora_mid.weight", "lora_up.weight"):
        chain = nn.functional.conv2d(chain, tensors[name])
    torch.testing.assert_close(CONV.apply(x, adapter.delta(CONV, tensors)), chain)


@pytest.mark.parametrize("shape", [LINEAR, POINT, CONV])
def test_loha_is_the_product_of_two_loras_entry_by_entry(shape):
    tensors = drawn(LOHA, shape, 4)
    first, second = (
        LORA.delta(shape, {"lora_up.weight": tensors[f"hada_w{n}_a"], "lora_down.weight": tensors[f"hada_w{n}_b"]}) for n in (1, 2)
    )
    torch.testing.assert_close(LOHA.delta(shape, tensors), first * second)
    assert torch.linalg.matrix_rank(LOHA.delta(shape, tensors).flatten(1)) == 10  # a LoRA of rank 4 reaches 4


def test_loha_in_tucker_form():
    """W[o, i, k, l] = Σ t[m, n, k, l] a[m, o] b[n, i], twice."""
    adapter = replace(LOHA, tucker=True)
    tensors = drawn(adapter, CONV, 2)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        **{f"hada_w{n}_{side}": (2, size) for n in (1, 2) for side, size in (("a", 10), ("b", 12))},
        **{f"hada_t{n}": (2, 2, 3, 3) for n in (1, 2)},
    }
    parts = []
    for n in (1, 2):
        core, a, b = tensors[f"hada_t{n}"], tensors[f"hada_w{n}_a"], tensors[f"hada_w{n}_b"]
        part = torch.zeros(CONV.weight, dtype=torch.float64)
        for m in range(2):
            for k in range(2):
                part += core[m, k] * a[m].reshape(10, 1, 1, 1) * b[k].reshape(12, 1, 1)
        parts.append(part)
    torch.testing.assert_close(adapter.delta(CONV, tensors), parts[0] * parts[1])


@pytest.mark.parametrize("shape", [LINEAR, POINT, CONV])
@pytest.mark.parametrize(("rank", "form"), [(4, {}), (2, {}), (1, {"lokr_decompose_both": True})])
def test_lokr_repeats_w2_in_blocks(shape, rank, form):
    """The block (p, q) of ΔW is w1[p, q] · w2."""
    adapter = replace(LOKR, **form)
    tensors = drawn(adapter, shape, rank)
    w1 = tensors["lokr_w1"] if "lokr_w1" in tensors else tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    w2 = tensors["lokr_w2"] if "lokr_w2" in tensors else (tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]).reshape(5, 4, *shape.weight[2:])
    delta = adapter.delta(shape, tensors)
    assert w1.shape == (2, 3)
    for p in range(2):
        for q in range(3):
            torch.testing.assert_close(delta[5 * p : 5 * p + 5, 4 * q : 4 * q + 4], w1[p, q] * w2)


def test_lokr_in_tucker_form_is_read():
    """w2[o, i, k, l] = Σ t[m, n, k, l] a[m, o] b[n, i]."""
    shapes = {"lokr_w1": (2, 3), "lokr_w2_a": (2, 5), "lokr_w2_b": (2, 4), "lokr_t2": (2, 2, 3, 3)}
    tensors = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    core, a, b = (tensors[name] for name in ("lokr_t2", "lokr_w2_a", "lokr_w2_b"))
    w2 = sum(core[m, n] * a[m].reshape(5, 1, 1, 1) * b[n].reshape(4, 1, 1) for m in range(2) for n in range(2))
    delta = LOKR.delta(CONV, tensors)
    for p in range(2):
        for q in range(3):
            torch.testing.assert_close(delta[5 * p : 5 * p + 5, 4 * q : 4 * q + 4], tensors["lokr_w1"][p, q] * w2)
    x = torch.randn(2, 12, 5, 5, dtype=torch.float64)
    fast = LOKR.add(CONV, x, torch.zeros(2, 10, 3, 3, dtype=torch.float64), tensors, 1.0)
    torch.testing.assert_close(fast, CONV.apply(x, delta))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (127, {-1: (1, 127), 2: (1, 127), 16: (1, 127)}),
        (128, {-1: (8, 16), 2: (2, 64), 4: (4, 32), 8: (8, 16), 16: (8, 16)}),
        (250, {-1: (10, 25), 2: (2, 125), 4: (2, 125), 8: (5, 50), 16: (10, 25)}),
        (360, {-1: (18, 20), 2: (2, 180), 4: (4, 90), 8: (8, 45), 16: (15, 24)}),
        (512, {-1: (16, 32), 4: (4, 128), 16: (16, 32)}),
        (1024, {-1: (32, 32), 4: (4, 256), 16: (16, 64), 64: (16, 64)}),
    ],
)
def test_how_a_size_is_split(size, expected):
    assert {factor: split(size, factor) for factor in expected} == expected


@pytest.mark.parametrize(
    ("rank", "options", "shape", "expected"),
    [
        (8, {}, LayerShape(320, 768), {"lokr_w1": (16, 24), "lokr_w2_a": (20, 8), "lokr_w2_b": (8, 32)}),
        (15, {}, LayerShape(320, 768), {"lokr_w1": (16, 24), "lokr_w2_a": (20, 15), "lokr_w2_b": (15, 32)}),
        (16, {}, LayerShape(320, 768), {"lokr_w1": (16, 24), "lokr_w2": (20, 32)}),
        (8, {"lokr_factor": 8}, LayerShape(320, 768), {"lokr_w1": (8, 8), "lokr_w2_a": (40, 8), "lokr_w2_b": (8, 96)}),
        (
            8,
            {"lokr_decompose_both": True},
            LayerShape(320, 768),
            {"lokr_w1_a": (16, 8), "lokr_w1_b": (8, 24), "lokr_w2_a": (20, 8), "lokr_w2_b": (8, 32)},
        ),
        (12, {"lokr_decompose_both": True}, LayerShape(320, 768), {"lokr_w1": (16, 24), "lokr_w2_a": (20, 12), "lokr_w2_b": (12, 32)}),
        (4, {}, LayerShape(320, 640, (3, 3)), {"lokr_w1": (16, 20), "lokr_w2_a": (20, 4), "lokr_w2_b": (4, 288)}),
        (16, {}, LayerShape(320, 640, (3, 3)), {"lokr_w1": (16, 20), "lokr_w2": (20, 32, 3, 3)}),
    ],
)
def test_when_lokr_factors_are_decomposed(rank, options, shape, expected):
    """A factor stays whole where the rank reaches half of its longer side."""
    adapter = replace(LOKR, **options)
    assert sizes(adapter, shape, rank) == expected
    decomposed = any(name.endswith("_b") for name in expected)
    assert adapter.uses_alpha(shape, rank) == decomposed
    assert adapter.rank_of(adapter.init(shape, rank, torch.Generator())) == (rank if decomposed else None)


def test_lora_starts_as_torch_starts_a_layer():
    """Kaiming-uniform with a = sqrt 5 is uniform in ±1/sqrt(fan_in): standard deviation 1/sqrt(3 fan_in)."""
    tensors = LORA.init(LayerShape(8, 32, (3, 3)), 64, torch.Generator().manual_seed(0))
    down, fan_in = tensors["lora_down.weight"], 32 * 9
    assert down.shape == (64, 32, 3, 3)
    assert float(down.abs().max()) <= fan_in**-0.5
    assert float(down.std()) == pytest.approx((3 * fan_in) ** -0.5, rel=0.02)
    assert not tensors["lora_up.weight"].any()


def test_loha_starts_as_lycoris_starts_it():
    tensors = LOHA.init(LayerShape(400, 300), 50, torch.Generator().manual_seed(0))
    expected = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_a": 0.0, "hada_w2_b": 1.0}
    assert {name: float(tensor.std()) for name, tensor in tensors.items()} == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("draw", "ranks"), [(0.0, 2), (0.24, 2), (0.25, 4), (0.74, 6), (0.75, 8), (0.999999, 8)])
@pytest.mark.parametrize("make", [lambda: nn.Linear(12, 10), lambda: nn.Conv2d(12, 10, 3)], ids=["linear", "conv"])
def test_a_dylora_step_is_a_lora_of_its_first_ranks(draw, ranks, make):
    """At the scale alpha/rank of the whole; the other ranks get no gradient."""
    layer = make().requires_grad_(False)
    adapters = AdapterSet(fresh_layers(replace(DYLORA, dylora_unit=2), [("key", layer)], 8, 4.0, 1))
    down, up = (adapters.layers[0].tensors[name] for name in ("lora_down.weight", "lora_up.weight"))
    up.data.normal_(generator=torch.Generator().manual_seed(1))
    adapters.attach()
    adapters.cast(torch.float32, draw)
    x = torch.ones(2, 12) if isinstance(layer, nn.Linear) else torch.ones(2, 12, 4, 4)
    small = {"lora_down.weight": down[:ranks].detach(), "lora_up.weight": up[:, :ranks].detach()}
    shape = LayerShape.of(layer)
    found = layer(x)
    torch.testing.assert_close(found, type(layer).forward(layer, x) + shape.apply(x, LORA.delta(shape, small)) * 0.5)
    found.square().mean().backward()
    used = [bool(down.grad[rank].any()) for rank in range(8)]
    assert used == [bool(up.grad[:, rank].any()) for rank in range(8)] == [rank < ranks for rank in range(8)]
    adapters.cast(torch.float32)
    full = {name: tensor.detach() for name, tensor in adapters.layers[0].tensors.items()}
    torch.testing.assert_close(layer(x), type(layer).forward(layer, x) + shape.apply(x, LORA.delta(shape, full)) * 0.5)


def test_a_dylora_rank_that_is_no_multiple_of_the_unit_is_trained_to_its_end():
    """Rank 5 in units of 2: a third of the steps each has 2, 4 and 5 ranks."""
    algorithm = replace(DYLORA, dylora_unit=2)
    tensors = algorithm.init(LayerShape(10, 12), 5, torch.Generator().manual_seed(0))
    counts = [len(algorithm.active(tensors, draw)["lora_down.weight"]) for draw in (0.0, 0.33, 0.34, 0.66, 0.67, 0.999)]
    assert counts == [2, 2, 4, 4, 5, 5]


def test_dora_starts_with_the_lengths_of_the_columns():
    """W = [[3, 0], [4, 2]]: its columns have the lengths 5 and 2."""
    layer = nn.Linear(2, 2, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    (joined,) = fresh_layers(LORA, [("key", layer)], 1, 1.0, 1, with_magnitude=True)
    assert torch.equal(joined.magnitude, torch.tensor([[5.0, 2.0]]))


def test_dora_keeps_the_length_that_was_learned():
    """W + ΔW = [[6, 0], [8, 2]] has columns of 10 and 2; with m = (1, 4) the new weight is [[0.6, 0], [0.8, 4]]."""
    layer = nn.Linear(2, 2).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    tensors = {
        "lora_up.weight": torch.tensor([[3.0], [4.0]]),
        "lora_down.weight": torch.tensor([[1.0, 0.0]]),
        MAGNITUDE: torch.tensor([[1.0, 4.0]]),
    }
    joined = AdapterLayer(LORA, "key", layer, tensors, 1.0)
    torch.testing.assert_close(layer.weight + joined.change(), torch.tensor([[0.6, 0.0], [0.8, 4.0]]))
    joined.strength = 0.5
    torch.testing.assert_close(layer.weight + joined.change(), torch.tensor([[1.8, 0.0], [2.4, 3.0]]))


@pytest.mark.parametrize("layer", [nn.Linear(3, 2), nn.Conv2d(3, 2, 3)])
def test_a_magnitude_for_each_output_follows_comfyui(layer):
    """From other programs' files: (W + ΔW) · m / ‖W‖ of each row; the bias stays."""
    layer.requires_grad_(False)
    shape = LayerShape.of(layer)
    lengths = layer.weight.flatten(1).norm(dim=1)
    magnitude = torch.tensor([2.0, 0.5]).reshape(2, *([1] * (len(shape.weight) - 1)))
    tensors = {name: tensor.float() for name, tensor in drawn(LORA, shape, 2).items()}
    joined = AdapterSet([AdapterLayer(LORA, "key", layer, {**tensors, MAGNITUDE: magnitude}, 2.0)])
    joined.attach()
    joined.cast(torch.float32)
    x = torch.ones(1, 3) if isinstance(layer, nn.Linear) else torch.randn(1, 3, 4, 4)
    weight = (layer.weight + LORA.delta(shape, tensors)) * (magnitude / lengths.reshape(magnitude.shape))
    bias = layer.bias.reshape(-1, *([1] * (x.dim() - 2)))
    torch.testing.assert_close(layer(x), shape.apply(x, weight) + bias)
    torch.testing.assert_close(layer.weight + joined.layers[0].change(), weight)
