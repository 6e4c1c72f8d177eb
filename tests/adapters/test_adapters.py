"""What every adapter algorithm must fulfil, on every kind of layer. A new algorithm joins by its line in ADAPTERS."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.adapters import ADAPTERS, LayerShape
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
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
RANK, ALPHA = 4, 6.0

every_adapter = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
every_layer = pytest.mark.parametrize("layer", LAYERS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def frozen(layer: str, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    """A frozen layer and an input for it."""
    make, shape = LAYERS[layer]
    torch.manual_seed(0)
    return make().to(dtype).requires_grad_(False), torch.randn(shape).to(dtype)


def attached(adapter, module: nn.Module, *, trained: bool) -> AdapterSet:
    """The adapter in place; `trained` gives all its tensors random values."""
    adapters = AdapterSet(fresh_layers(adapter, [("key", module)], RANK, ALPHA, seed=1))
    if trained:
        generator = torch.Generator().manual_seed(2)
        for parameter in adapters.parameters():
            parameter.data.normal_(std=0.3, generator=generator)
    adapters.attach()
    return adapters


@every_adapter
@every_layer
@every_dtype
def test_a_fresh_adapter_changes_nothing(adapter, layer, dtype):
    module, x = frozen(layer, dtype)
    before = module(x)
    adapters = attached(adapter, module, trained=False)
    adapters.cast(dtype)
    assert torch.equal(module(x), before)
    assert adapters.silent() == ["key"]
    assert not adapters.layers[0].delta().any()


@every_adapter
@every_layer
@every_dtype
def test_the_fast_form_equals_the_layer_with_the_changed_weight(adapter, layer, dtype):
    module, x = frozen(layer, dtype)
    adapters = attached(adapter, module, trained=True)
    adapters.cast(dtype)
    (joined,) = adapters.layers
    shape = LayerShape.of(module)
    assert joined.scale == ALPHA / RANK

    live = {name: tensor.double() for name, tensor in joined.live.items()}
    changed = module.weight.double() + adapter.delta(shape, live) * ALPHA / RANK
    expected = shape.apply(x.double(), changed)
    if module.bias is not None:
        expected += module.bias.double().reshape(-1, *([1] * (expected.dim() - 2 if shape.kernel else 0)))
    found = module(x)
    assert found.dtype == dtype and found.shape == expected.shape
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    assert not torch.allclose(found.double(), shape.apply(x.double(), module.weight.double()), atol=0.1)
    assert adapters.silent() == []


@every_adapter
@every_layer
def test_the_change_is_up_times_down(adapter, layer):
    """LoRA's formula, written out for each entry of the kernel."""
    if adapter.name != "lora":
        pytest.skip("the formula is LoRA's")
    module, _ = frozen(layer, torch.float32)
    (joined,) = attached(adapter, module, trained=True).layers
    down, up = joined.tensors["lora_down.weight"].detach(), joined.tensors["lora_up.weight"].detach()
    expected = torch.zeros_like(module.weight)
    for rank in range(RANK):
        expected += torch.einsum("o,i...->oi...", up[:, rank].flatten(), down[rank]) * ALPHA / RANK
    torch.testing.assert_close(joined.delta(), expected)


@every_adapter
@every_layer
@every_dtype
def test_gradients_through_the_copies_are_those_of_plain_autograd(adapter, layer, dtype):
    module, x = frozen(layer, dtype)
    adapters = attached(adapter, module, trained=True)
    (joined,) = adapters.layers
    x.requires_grad_()
    adapters.cast(dtype)
    module(x).float().square().mean().backward()
    found, found_x = {name: tensor.grad for name, tensor in joined.tensors.items()}, x.grad

    masters = {name: tensor.detach().clone().requires_grad_() for name, tensor in joined.tensors.items()}
    x = x.detach().requires_grad_()
    plain = {name: tensor.to(dtype) for name, tensor in masters.items()}
    output = adapter.add(joined.shape, x, type(module).forward(module, x), plain, joined.scale)
    output.float().square().mean().backward()
    assert torch.equal(found_x, x.grad)
    for name, master in masters.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], master.grad) and master.grad.any()


@every_adapter
@every_layer
@every_dtype
def test_saved_tensors_load_equal(adapter, layer, dtype, tmp_path):
    module, x = frozen(layer, dtype)
    adapters = attached(adapter, module, trained=True)
    path = tmp_path / "a.safetensors"
    saved = adapters.saved(dtype)
    assert set(saved) == {f"key.{name}" for name in (*adapter.tensor_names, "alpha")}
    assert {tensor.dtype for tensor in saved.values()} == {dtype}
    save_artefact(path, saved, {})
    adapters.cast(dtype)
    expected = module(x)
    adapters.detach()

    loaded, unused = load_adapters(path, [("key", module), ("other", nn.Linear(1, 1))])
    assert unused == []
    (layer_again,) = loaded.layers
    assert layer_again.alpha == ALPHA and layer_again.scale == ALPHA / RANK
    for name in adapter.tensor_names:
        assert torch.equal(layer_again.tensors[name].to(dtype), saved[f"key.{name}"])
    loaded.attach()
    set_strength(loaded, 1.0, dtype)
    assert torch.equal(module(x), expected)
    set_strength(loaded, 0.0, dtype)
    assert torch.equal(module(x), type(module).forward(module, x))


@every_adapter
@pytest.mark.parametrize("strength", [-1.0, 0.5, 2.0])
def test_a_strength_scales_the_change(adapter, strength, tmp_path):
    module, x = frozen("linear", torch.float32)
    plain = module(x)
    adapters = attached(adapter, module, trained=True)
    adapters.cast(torch.float32)
    full = module(x).detach()
    save_artefact(tmp_path / "a.safetensors", adapters.saved(torch.float32), {})
    adapters.detach()
    loaded, _ = load_adapters(tmp_path / "a.safetensors", [("key", module)])
    loaded.attach()
    set_strength(loaded, strength, torch.float32)
    torch.testing.assert_close(module(x), plain + strength * (full - plain), rtol=1e-4, atol=1e-4)


@every_adapter
def test_state_restores_bitwise_and_refuses_what_does_not_fit(adapter):
    module, _ = frozen("linear", torch.float32)
    first = attached(adapter, module, trained=True)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = attached(adapter, module, trained=False)
    second.restore(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in second.state().items())
    with pytest.raises(ModelFileError, match="1 tensors differ, for example key"):
        second.restore(dict(list(state.items())[1:]))


@every_adapter
def test_only_adapter_parameters_need_gradients(adapter):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Conv2d(8, 4, 3)).requires_grad_(False)
    adapters = AdapterSet(fresh_layers(adapter, [("a", model[0]), ("b", model[2])], RANK, ALPHA, seed=1))
    adapters.attach()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    own = list(adapters.parameters())
    assert len(own) == 2 * len(adapter.tensor_names)
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in own)


@every_adapter
@every_layer
def test_detaching_gives_the_layer_back(adapter, layer):
    module, x = frozen(layer, torch.float32)
    before, attributes = module(x), dict(vars(module))
    adapters = attached(adapter, module, trained=True)
    adapters.cast(torch.float32)
    assert not torch.equal(module(x), before)
    adapters.release()
    assert torch.equal(module(x), before)
    adapters.detach()
    adapters.detach()
    assert torch.equal(module(x), before)
    assert vars(module).keys() == attributes.keys() and "forward" not in vars(module)


@every_adapter
def test_the_start_depends_on_seed_and_key_alone(adapter):
    def start(seed: int, *keys: str) -> dict[str, torch.Tensor]:
        return AdapterSet(fresh_layers(adapter, [(key, nn.Linear(6, 6)) for key in keys], RANK, ALPHA, seed)).state()

    alone, among, other = start(1, "b"), start(1, "a", "b", "c"), start(2, "b")
    assert all(torch.equal(tensor, among[name]) for name, tensor in alone.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in alone.items())
    assert any(not torch.equal(among[name], among[name.replace("b.", "a.", 1)]) for name in alone)


def test_lora_starts_as_torch_starts_a_layer():
    """Kaiming-uniform with a = sqrt 5 is uniform in ±1/sqrt(fan_in): standard deviation 1/sqrt(3 fan_in)."""
    tensors = ADAPTERS["lora"].init(LayerShape(8, 32, (3, 3)), 64, torch.Generator().manual_seed(0))
    down, fan_in = tensors["lora_down.weight"], 32 * 9
    assert down.shape == (64, 32, 3, 3)
    assert float(down.abs().max()) <= fan_in**-0.5
    assert float(down.std()) == pytest.approx((3 * fan_in) ** -0.5, rel=0.02)
    assert not tensors["lora_up.weight"].any()


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_a_file_without_alpha_has_scale_one(tmp_path, alpha):
    tensors = {"key.lora_down.weight": torch.randn(RANK, 12), "key.lora_up.weight": torch.randn(10, RANK)}
    if alpha is not None:
        tensors["key.alpha"] = torch.tensor(alpha)
    save_artefact(tmp_path / "a.safetensors", tensors, {})
    (layer,) = load_adapters(tmp_path / "a.safetensors", [("key", nn.Linear(12, 10))])[0].layers
    assert layer.scale == 1.0


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    module = nn.Linear(12, 10)
    good = {"key.lora_down.weight": torch.randn(RANK, 12), "key.lora_up.weight": torch.randn(10, RANK)}
    for tensors, targets, words in (
        (good, [("elsewhere", module)], "fits no layer of this model; its tensors start with 'key.lora_"),
        (
            {**good, "key.lora_up.weight": torch.randn(11, RANK)},
            [("key", module)],
            r"lora_up\.weight has shape \(11, 4\), but this layer needs \(10, 4\)",
        ),
        (
            {**good, "key.lora_down.weight": torch.randn(RANK, 16)},
            [("key", module)],
            r"is for another model: key\.lora_down\.weight has shape \(4, 16\)",
        ),
        (
            {**good, "key.lora_down.weight": torch.randn(5, 12)},
            [("key", module)],
            r"lora_up\.weight has shape \(10, 4\), but this layer needs \(10, 5\)",
        ),
        ({"key.hada_w1_a": torch.randn(2, 2)}, [("key", module)], "has the tensors hada_w1_a, which are of no known adapter"),
    ):
        save_artefact(path, tensors, {})
        with pytest.raises(ModelFileError, match=words):
            load_adapters(path, targets)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelFileError, match="is not a whole safetensors file"):
        load_adapters(path, [("key", module)])
    with pytest.raises(ModelFileError, match=r"nowhere\.safetensors cannot be read"):
        load_adapters(tmp_path / "nowhere.safetensors", [("key", module)])


def test_tensors_that_no_layer_takes_are_listed(tmp_path):
    tensors = {f"{key}.{name}": torch.randn(4, 4) for key in ("key", "lora_te_x") for name in ("lora_down.weight", "lora_up.weight")}
    save_artefact(tmp_path / "a.safetensors", tensors, {})
    _, unused = load_adapters(tmp_path / "a.safetensors", [("key", nn.Linear(4, 4))])
    assert unused == ["lora_te_x.lora_down.weight", "lora_te_x.lora_up.weight"]


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match="not LayerNorm"):
        AdapterLayer(ADAPTERS["lora"], "key", nn.LayerNorm(4), {"lora_down.weight": torch.zeros(1, 4)}, 1.0)
