"""Frozen weights kept in fewer bits or in the computer's memory: errors, gradients, what stays in memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.families.storage import STORAGES, StoredLayer, Stream, device_bytes, store_weights, whole_bytes

CPU = torch.device("cpu")
# The largest error of a rounded number: half a step of 1/127 of the row's largest for int8; half of 2^-3 of the number itself
# for fp8's three bits after the point; half of the widest gap of NormalFloat's 16 levels, -1 to -0.6962, for nf4.
WORST = {"int8": 0.5 / 127, "fp8": 2**-4, "nf4": 0.5 * 0.3038}


def layers() -> list[tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(1)
    return [
        (nn.Linear(128, 64), torch.randn(2, 5, 128)),
        (nn.Linear(64, 96, bias=False), torch.randn(3, 64)),
        (nn.Conv2d(64, 64, 3, padding=1, stride=2), torch.randn(2, 64, 8, 8)),
        (nn.Conv2d(128, 64, 3, padding=1, groups=2), torch.randn(2, 128, 4, 4).to(memory_format=torch.channels_last)),
    ]


def stored(network: nn.Module, kind: str = "full", offload: float = 0.0) -> nn.Module:
    store_weights(network.requires_grad_(False), kind, offload, CPU)
    return network


@pytest.mark.parametrize("kind", list(WORST))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_weight_is_within_the_formats_rounding_error(kind, dtype):
    weight = (torch.randn(64, 128) * torch.logspace(-3, 0, 64)[:, None]).to(dtype)
    storage = STORAGES[kind]
    back = storage.unpack(storage.pack(weight), weight.shape, dtype)
    assert back.dtype == dtype and back.shape == weight.shape
    group = weight.float().view(64, -1, 64) if kind == "nf4" else weight.float()[:, None]  # numbers with a scale in common
    largest = group.abs().amax(2, keepdim=True).expand_as(group).reshape(weight.shape)
    bound = (weight.float().abs() if kind == "fp8" else largest) * WORST[kind] + (largest * 2**-9 / 448 if kind == "fp8" else 0)
    slack = 0 if dtype == torch.float32 else 2**-7  # the scale and the product are rounded to bf16 too
    assert ((back.float() - weight.float()).abs() <= bound * 1.001 + slack * largest).all()
    assert not torch.equal(back, weight)


@pytest.mark.parametrize("kind", list(STORAGES))
@pytest.mark.parametrize("number", range(4))
def test_output_and_gradient_are_those_of_the_unpacked_weight(kind, number):
    layer, x = layers()[number]
    weight = STORAGES[kind].unpack(STORAGES[kind].pack(layer.weight), layer.weight.shape, torch.float32)
    reference = layers()[number][0]
    reference.weight.data = weight
    x1, x2 = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    expected = reference(x1)
    network = stored(nn.Sequential(layer), kind, offload=1.0 if kind == "full" else 0.0)
    assert isinstance(layer, StoredLayer)
    got = network(x2)
    torch.testing.assert_close(got, expected)
    upstream = torch.randn(expected.shape)
    expected.backward(upstream)
    got.backward(upstream)
    torch.testing.assert_close(x2.grad, x1.grad)


def test_autograd_keeps_no_weight():
    layer, x = layers()[0]
    sizes = []
    network = stored(nn.Sequential(layer), "int8")
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.shape) or t, lambda t: t):
        network(x.requires_grad_(True)).sum()
    assert (64, 128) not in sizes and (128, 64) not in sizes


@pytest.mark.parametrize(("kind", "bits"), [("full", 32), ("fp8", 8), ("int8", 8), ("nf4", 4)])
def test_what_the_weights_take_on_the_device(kind, bits):
    network = nn.Sequential(nn.Linear(128, 64, bias=False), nn.Linear(64, 3, bias=False))
    scales = {"full": 0, "nf4": 4 * 64 * 128 // 64}.get(kind, 4 * 64)
    small = 4 * 64 * 3  # fewer than 64 outputs: left as it is
    assert whole_bytes(stored(network, kind)) == 4 * (64 * 128 + 64 * 3)
    assert device_bytes(network) == 64 * 128 * bits // 8 + scales + small
    assert type(network[1]) is nn.Linear


def test_offload_keeps_the_last_layers_off_the_device_and_changes_no_number():
    torch.manual_seed(1)
    network = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(8)))
    x = torch.randn(2, 64)
    expected, whole = network(x), device_bytes(network)
    assert torch.equal(stored(network, offload=0.25)(x), expected)
    assert [isinstance(layer, StoredLayer) for layer in network] == [False] * 6 + [True] * 2
    assert device_bytes(network) == whole * 6 // 8


def test_the_stream_has_the_next_weight_ready_once_it_knows_the_order(monkeypatch):
    network = stored(nn.Sequential(*(nn.Linear(64, 64) for _ in range(4))), offload=1.0)
    copy, fetched = Stream._copy, []
    monkeypatch.setattr(Stream, "_copy", lambda self, weight: fetched.append(weight) or copy(self, weight))
    x = torch.randn(1, 64, requires_grad=True)
    for _ in range(3):
        fetched.clear()
        network(x).sum().backward()
    # The first layer's weight was fetched at the end of the pass before; each use then fetches the following one.
    assert fetched == [network[number].stored for number in (1, 2, 3, 3, 2, 1, 0, 0)]
