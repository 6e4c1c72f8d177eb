"""What every adapter algorithm must fulfil, on every kind of layer. A new algorithm joins by its line in ADAPTERS.

Each is tried in every form that its options give it, with and without DoRA.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from trainer.adapters import ADAPTERS, Adapter, LayerShape
from trainer.adapters.dora import MAGNITUDE
from trainer.adapters.files import load_adapters, set_strength
from trainer.adapters.inject import AdapterLayer, AdapterSet, fresh_layers
from trainer.checkpoint import save_artefact
from trainer.errors import ModelFileError

LAYERS = {
    "linear": (lambda: nn.Linear(12, 10), (2, 5, 12)),
    "linear without bias": (lambda: nn.Linear(12, 10, bias=False), (7, 12)),
    "conv 1x1": (lambda: nn.Conv2d(12, 10, 1), (2, 12, 6, 5)),
    "conv 3x3": (lambda: nn.Conv2d(12, 10, 3, padding=1), (2, 12, 6, 5)),
    "conv 3x3 stride 2": (lambda: nn.Conv2d(12, 10, 3, stride=2, padding=1), (2, 12, 6, 5)),
    "conv 3x3 dilated": (lambda: nn.Conv2d(12, 10, 3, padding=2, dilation=2), (2, 12, 6, 5)),
    "conv 3x3 in groups": (lambda: nn.Conv2d(24, 10, 3, padding=1, groups=2), (2, 24, 6, 5)),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ALPHA = 6.0


@dataclass(frozen=True)
class Form:
    """An algorithm with its options, and a rank at which they show: LoKr's factors of 10 x 12 are 2 x 3 and 5 x 4."""

    adapter: Adapter
    rank: int = 4
    dora: bool = False

    def layers(self, *targets: tuple[str, nn.Module], seed: int = 1) -> list[AdapterLayer]:
        return fresh_layers(self.adapter, targets, self.rank, ALPHA, seed, self.dora)


LORA, LOHA, LOKR = (ADAPTERS[name] for name in ("lora", "loha", "lokr"))
FORMS = {
    **{name: Form(adapter) for name, adapter in ADAPTERS.items()},
    "lora tucker": Form(replace(LORA, tucker=True)),
    "loha tucker": Form(replace(LOHA, tucker=True)),
    "lokr rank 2": Form(LOKR, rank=2),
    "lokr factor 2": Form(replace(LOKR, lokr_factor=2), rank=2),
    "lokr both": Form(replace(LOKR, lokr_decompose_both=True), rank=1),
}
PLAIN = dict(FORMS)
FORMS |= {f"{name} dora": replace(form, dora=True) for name, form in PLAIN.items()}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
every_plain_form = pytest.mark.parametrize("form", PLAIN.values(), ids=PLAIN)
every_layer = pytest.mark.parametrize("layer", LAYERS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def frozen(layer: str, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    """A frozen layer and an input for it."""
    make, shape = LAYERS[layer]
    torch.manual_seed(0)
    return make().to(dtype).requires_grad_(False), torch.randn(shape).to(dtype)


def attached(form: Form, module: nn.Module, *, trained: bool) -> AdapterSet:
    """The adapter in place; `trained` gives all its tensors random values."""
    adapters = AdapterSet(form.layers(("key", module)))
    if trained:
        generator = torch.Generator().manual_seed(2)
        for layer in adapters.layers:
            for parameter in layer.parts().values():
                parameter.data.normal_(std=0.5, generator=generator)
            if layer.magnitude is not None:
                layer.magnitude.data.mul_(torch.empty_like(layer.magnitude).uniform_(0.5, 2, generator=generator))
    adapters.attach()
    return adapters


def new_weight(joined: AdapterLayer, module: nn.Module, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """W + ΔW, or DoRA's m (W + ΔW) / ‖W + ΔW‖ of each input column, in float64."""
    changed = module.weight.double() + joined.adapter.delta(joined.shape, {k: v.double() for k, v in tensors.items()}) * joined.scale
    if joined.magnitude is None:
        return changed
    columns = changed.transpose(0, 1).flatten(1).norm(dim=1)
    return changed * (joined.magnitude.detach().double() / columns.reshape(joined.magnitude.shape))


def applied(module: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The layer with another weight."""
    output = LayerShape.of(module).apply(x, weight)
    return (
        output
        if module.bias is None
        else output + module.bias.to(output).reshape(-1, *([1] * (output.dim() - 2 if weight.dim() > 2 else 0)))
    )


@every_form
@every_layer
@every_dtype
def test_a_fresh_adapter_changes_nothing(form, layer, dtype):
    module, x = frozen(layer, dtype)
    before = module(x)
    adapters = attached(form, module, trained=False)
    adapters.cast(dtype)
    assert torch.equal(module(x), before)
    assert not adapters.layers[0].change().any()
    assert adapters.silent() == ["key"]
    assert not adapters.layers[0].delta().any()


@every_form
@every_layer
@every_dtype
def test_the_fast_form_equals_the_layer_with_the_changed_weight(form, layer, dtype):
    module, x = frozen(layer, dtype)
    adapters = attached(form, module, trained=True)
    adapters.cast(dtype)
    (joined,) = adapters.layers
    rank = form.adapter.rank_of(joined.tensors)
    assert rank in (form.rank, None) and joined.scale == (ALPHA / rank if rank else 1)

    expected = applied(module, x.double(), new_weight(joined, module, joined.live))
    found = module(x)
    assert found.dtype == dtype and found.shape == expected.shape
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * float(expected.detach().abs().max()))
    assert not torch.allclose(found.double(), applied(module, x.double(), module.weight.double()), atol=0.1)
    assert adapters.silent() == []


@every_form
@every_layer
def test_a_merged_weight_does_what_the_adapter_does(form, layer):
    module, x = frozen(layer, torch.float32)
    adapters = attached(form, module, trained=True)
    adapters.cast(torch.float32)
    (joined,) = adapters.layers
    torch.testing.assert_close(joined.change().double(), new_weight(joined, module, joined.parts()) - module.weight, rtol=1e-4, atol=1e-5)
    live = module(x)
    adapters.detach()
    module.weight += joined.change()
    torch.testing.assert_close(module(x), live, rtol=1e-4, atol=1e-4)


@every_plain_form
@every_layer
@every_dtype
def test_gradients_through_the_copies_are_those_of_plain_autograd(form, layer, dtype):
    module, x = frozen(layer, dtype)
    adapters = attached(form, module, trained=True)
    (joined,) = adapters.layers
    x.requires_grad_()
    adapters.cast(dtype)
    module(x).float().square().mean().backward()
    found, found_x = {name: tensor.grad for name, tensor in joined.tensors.items()}, x.grad

    masters = {name: tensor.detach().clone().requires_grad_() for name, tensor in joined.tensors.items()}
    x = x.detach().requires_grad_()
    plain = {name: tensor.to(dtype) for name, tensor in masters.items()}
    output = form.adapter.add(joined.shape, x, type(module).forward(module, x), plain, joined.scale)
    output.float().square().mean().backward()
    assert torch.equal(found_x, x.grad)
    for name, master in masters.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], master.grad) and master.grad.any()


@every_form
@every_layer
def test_gradients_are_those_of_the_changed_weight(form, layer):
    """Of W + ΔW written out; with DoRA its norm counts as a constant (section 4.3 of the paper)."""
    module, x = frozen(layer, torch.float32)
    adapters = attached(form, module, trained=True)
    (joined,) = adapters.layers
    x.requires_grad_()
    adapters.cast(torch.float32)
    module(x).square().mean().backward()

    masters = {name: tensor.detach().clone().requires_grad_() for name, tensor in joined.tensors.items()}
    again = x.detach().requires_grad_()
    weight = module.weight + form.adapter.delta(joined.shape, masters) * joined.scale
    if form.dora:
        norms = weight.detach().transpose(0, 1).flatten(1).norm(dim=1)
        weight = weight * (masters[MAGNITUDE] / norms.reshape(masters[MAGNITUDE].shape))
    applied(module, again, weight).square().mean().backward()
    torch.testing.assert_close(x.grad, again.grad, rtol=1e-3, atol=1e-5)
    for name, master in masters.items():
        torch.testing.assert_close(joined.tensors[name].grad, master.grad, rtol=1e-3, atol=1e-5 * float(master.grad.abs().max() + 1))


@every_form
@every_layer
@every_dtype
def test_saved_tensors_load_equal(form, layer, dtype, tmp_path):
    module, x = frozen(layer, dtype)
    adapters = attached(form, module, trained=True)
    path = tmp_path / "a.safetensors"
    saved = adapters.saved(dtype)
    names = {name.removeprefix("key.") for name in saved} - {"alpha"}
    assert names - {MAGNITUDE} in form.adapter.layouts and (MAGNITUDE in names) == form.dora and "key.alpha" in saved
    assert {tensor.dtype for name, tensor in saved.items() if not name.endswith(MAGNITUDE)} == {dtype}
    assert all(tensor.dtype == torch.float32 for name, tensor in saved.items() if name.endswith(MAGNITUDE))
    save_artefact(path, saved, {})
    adapters.cast(dtype)
    expected = module(x)
    adapters.detach()

    loaded, unused = load_adapters(path, [("key", module), ("other", nn.Linear(1, 1))])
    assert unused == []
    (layer_again,) = loaded.layers
    assert layer_again.alpha == ALPHA and layer_again.scale == adapters.layers[0].scale
    for name in names:
        assert torch.equal(layer_again.tensors[name].to(saved[f"key.{name}"].dtype), saved[f"key.{name}"])
    loaded.attach()
    set_strength(loaded, 1.0, dtype)
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype] if form.dora else 0  # its norms are of rounded tensors now
    torch.testing.assert_close(module(x), expected, rtol=tolerance, atol=tolerance * float(expected.detach().abs().max()))
    set_strength(loaded, 0.0, dtype)
    assert torch.equal(module(x), type(module).forward(module, x))


@every_form
@pytest.mark.parametrize("layer", ["linear", "conv 3x3"])
@pytest.mark.parametrize("strength", [-1.0, 0.5, 2.0])
def test_a_strength_scales_the_change(form, layer, strength, tmp_path):
    module, x = frozen(layer, torch.float32)
    plain = module(x)
    adapters = attached(form, module, trained=True)
    adapters.cast(torch.float32)
    full = module(x).detach()
    save_artefact(tmp_path / "a.safetensors", adapters.saved(torch.float32), {})
    adapters.detach()
    loaded, _ = load_adapters(tmp_path / "a.safetensors", [("key", module)])
    loaded.attach()
    set_strength(loaded, strength, torch.float32)
    torch.testing.assert_close(module(x), plain + strength * (full - plain), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loaded.layers[0].change(), strength * adapters.layers[0].change())


@every_form
def test_state_restores_bitwise_and_refuses_what_does_not_fit(form):
    module, _ = frozen("linear", torch.float32)
    first = attached(form, module, trained=True)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = attached(form, module, trained=False)
    second.restore(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in second.state().items())
    with pytest.raises(ModelFileError, match="1 tensors differ, for example key"):
        second.restore(dict(list(state.items())[1:]))


@every_form
def test_only_adapter_parameters_need_gradients(form):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Conv2d(8, 4, 3)).requires_grad_(False)
    adapters = AdapterSet(form.layers(("a", model[0]), ("b", model[2])))
    adapters.attach()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    own = list(adapters.parameters())
    assert len(own) == len(adapters.state()) > 3
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in own)


@every_form
@every_layer
def test_detaching_gives_the_layer_back(form, layer):
    module, x = frozen(layer, torch.float32)
    before, attributes = module(x), dict(vars(module))
    adapters = attached(form, module, trained=True)
    adapters.cast(torch.float32)
    assert not torch.equal(module(x), before)
    adapters.release()
    assert torch.equal(module(x), before)
    adapters.detach()
    adapters.detach()
    assert torch.equal(module(x), before)
    assert vars(module).keys() == attributes.keys() and "forward" not in vars(module)


@every_form
def test_the_start_depends_on_seed_and_key_alone(form):
    def start(seed: int, *keys: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = nn.Linear(12, 10)
        return AdapterSet(form.layers(*((key, module) for key in keys), seed=seed)).state()

    alone, among, other = start(1, "b"), start(1, "a", "b", "c"), start(2, "b")
    assert all(torch.equal(tensor, among[name]) for name, tensor in alone.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in alone.items())
    assert any(not torch.equal(among[name], among[name.replace("b.", "a.", 1)]) for name in alone)
