"""Reading adapter files, our own and other programs'."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.adapters import ADAPTERS, LayerShape
from trainer.adapters.files import load_adapters, set_strength
from trainer.adapters.inject import AdapterLayer
from trainer.checkpoint import save_artefact
from trainer.errors import ModelFileError

RANK = 4


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


def loaded(tmp_path, module: nn.Module, tensors: dict[str, torch.Tensor]) -> AdapterLayer:
    save_artefact(tmp_path / "foreign.safetensors", {f"key.{name}": tensor for name, tensor in tensors.items()}, {})
    adapters, unused = load_adapters(tmp_path / "foreign.safetensors", [("key", module)])
    assert unused == []
    (layer,) = adapters.layers
    adapters.attach()
    set_strength(adapters, 1.0, torch.float32)
    return layer


@pytest.mark.parametrize("middle", ["", ".default"])
def test_peft_names_are_lora(tmp_path, middle):
    down, up = torch.randn(RANK, 12), torch.randn(10, RANK)
    layer = loaded(tmp_path, nn.Linear(12, 10), {f"lora_A{middle}.weight": down, f"lora_B{middle}.weight": up})
    assert layer.adapter.name == "lora"
    torch.testing.assert_close(layer.change(), up @ down)


def test_a_matrix_serves_a_convolution(tmp_path):
    """Some programs flatten a kernel, or give a 1x1 convolution the two dimensions of a matrix."""
    down, up = torch.randn(RANK, 12 * 9), torch.randn(10, RANK)
    layer = loaded(tmp_path, nn.Conv2d(12, 10, 3), {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0)})
    torch.testing.assert_close(layer.change(), (up @ down).reshape(10, 12, 3, 3) * 0.5)
    flat = loaded(
        tmp_path, nn.Linear(12, 10), {"lora_down.weight": down[:, :12, None, None].clone(), "lora_up.weight": up[..., None, None]}
    )
    torch.testing.assert_close(flat.change(), up @ down[:, :12])


@pytest.mark.parametrize(
    ("shapes", "kind", "scale"),
    [
        ({"lora_down.weight": (4, 12, 1, 1), "lora_mid.weight": (4, 4, 3, 3), "lora_up.weight": (10, 4, 1, 1)}, "lora", 0.5),
        ({"hada_w1_a": (10, 4), "hada_w1_b": (4, 108), "hada_w2_a": (10, 4), "hada_w2_b": (4, 108)}, "loha", 0.5),
        (
            {"hada_w1_a": (4, 10), "hada_w1_b": (4, 12), "hada_w2_a": (4, 10), "hada_w2_b": (4, 12)}
            | {"hada_t1": (4, 4, 3, 3), "hada_t2": (4, 4, 3, 3)},
            "loha",
            0.5,
        ),
        ({"lokr_w1": (5, 3), "lokr_w2": (2, 4, 3, 3)}, "lokr", 1.0),
        ({"lokr_w1_a": (5, 4), "lokr_w1_b": (4, 3), "lokr_w2": (2, 4, 3, 3)}, "lokr", 0.5),
        ({"lokr_w1": (5, 3), "lokr_w2_a": (2, 4), "lokr_w2_b": (4, 36)}, "lokr", 0.5),
        ({"lokr_w1": (1, 1), "lokr_w2_a": (4, 10), "lokr_w2_b": (4, 12), "lokr_t2": (4, 4, 3, 3)}, "lokr", 0.5),
    ],
)
@pytest.mark.parametrize("dora", [None, (1, 12, 1, 1), (10, 1, 1, 1)])
def test_every_layout_is_known_whatever_its_factors(tmp_path, shapes, kind, scale, dora):
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()} | {"alpha": torch.tensor(2.0)}
    if dora:
        tensors["dora_scale"] = torch.rand(dora) + 1
    module = nn.Conv2d(12, 10, 3).requires_grad_(False)
    layer = loaded(tmp_path, module, tensors)
    assert (layer.adapter.name, layer.scale, layer.magnitude is not None) == (kind, scale, dora is not None)
    x = torch.randn(1, 12, 4, 4)
    expected = LayerShape.of(module).apply(x, module.weight + layer.change()) + module.bias.reshape(-1, 1, 1)
    torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lokr_w1": (5, 4)}, r"lokr_w1 has shape \(5, 4\), but this layer needs \(5, 3\)"),
        ({"lokr_w2": (3, 4, 3, 3)}, r"lokr_w1 has shape \(5, 3\), but this layer needs \(3, 3\)"),
        ({"lokr_w2": (2, 4, 1, 1)}, r"lokr_w2 has shape \(2, 4, 1, 1\), but this layer needs \(2, 4, 3, 3\)"),
        ({"dora_scale": (1, 13, 1, 1)}, r"dora_scale has shape \(1, 13, 1, 1\), but this layer needs \(1, 12, 1, 1\)"),
    ],
)
def test_a_factor_that_does_not_fit_is_refused(tmp_path, change, words):
    tensors = {name: torch.randn(shape) for name, shape in ({"lokr_w1": (5, 3), "lokr_w2": (2, 4, 3, 3)} | change).items()}
    with pytest.raises(ModelFileError, match=words):
        loaded(tmp_path, nn.Conv2d(12, 10, 3), tensors)
