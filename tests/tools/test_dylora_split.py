"""A rank that was cut out of a DyLoRA does what its first ranks did in training."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from trainer.adapters import ADAPTERS
from trainer.adapters.files import load_adapters, set_strength
from trainer.adapters.inject import AdapterSet, fresh_layers
from trainer.checkpoint import save_artefact
from trainer.cli import main
from trainer.errors import ConfigError, ModelFileError
from trainer.tools.dylora_split import dylora_split

METADATA = {"ss_network_dim": "8", "ss_network_alpha": "4.0", "ss_network_args": json.dumps({"block_size": "2"}), "ss_steps": "7"}


@pytest.fixture
def trained(tmp_path):
    """A DyLoRA of rank 8 and alpha 4 on two layers, one of them of rank 4, and its file."""
    torch.manual_seed(0)
    layers = [nn.Linear(12, 10).requires_grad_(False), nn.Conv2d(12, 10, 3).requires_grad_(False)]
    adapter = ADAPTERS["dylora"]
    made = fresh_layers(adapter, [("a", layers[0])], 8, 4.0, 1) + fresh_layers(adapter, [("b", layers[1])], 4, 2.0, 1)
    adapters = AdapterSet(made)
    for parameter in adapters.parameters():
        parameter.data.normal_()
    path = tmp_path / "cat.safetensors"
    save_artefact(path, adapters.saved(torch.float32), METADATA)
    return adapters, layers, path


def test_every_multiple_of_the_unit_is_cut_out_at_equal_strength(trained, tmp_path):
    adapters, layers, path = trained
    files = dylora_split(path, tmp_path / "out")
    assert [file.name for file in files] == ["cat-0002.safetensors", "cat-0004.safetensors", "cat-0006.safetensors"]
    x = [torch.randn(3, 12), torch.randn(1, 12, 4, 4)]
    for rank, file in zip((2, 4, 6), files, strict=True):
        adapters.attach()
        for layer in adapters.layers:
            own = {name: tensor.detach() for name, tensor in layer.parts().items()}
            down, up = own["lora_down.weight"][:rank], own["lora_up.weight"][:, :rank]
            layer.live = {"lora_down.weight": down, "lora_up.weight": up}
        expected = [layer(value) for layer, value in zip(layers, x, strict=True)]
        adapters.detach()
        cut, unused = load_adapters(file, [("a", layers[0]), ("b", layers[1])])
        assert unused == [] and [layer.scale for layer in cut.layers] == [0.5, 0.5]
        assert [layer.adapter.rank_of(layer.parts()) for layer in cut.layers] == [rank, min(rank, 4)]
        cut.attach()
        set_strength(cut, 1.0, torch.float32)
        for layer, value, output in zip(layers, x, expected, strict=True):
            torch.testing.assert_close(layer(value), output)
        cut.detach()
        with safe_open(file, "pt") as opened:
            found = opened.metadata()
        assert (found["ss_network_dim"], found["ss_network_alpha"], found["ss_steps"]) == (str(rank), str(rank / 2), "7")


def test_what_cannot_be_cut_is_refused(trained, tmp_path):
    _, _, path = trained
    with pytest.raises(ConfigError, match="has 8 ranks, so 9 cannot be cut out of it"):
        dylora_split(path, tmp_path / "out", [2, 9])
    dylora_split(path, tmp_path / "out", [2])
    with pytest.raises(ConfigError, match="exists already"):
        dylora_split(path, tmp_path / "out", [2, 4])
    assert len(list((tmp_path / "out").iterdir())) == 1
    bare = tmp_path / "bare.safetensors"
    save_artefact(bare, {"a.lora_down.weight": torch.ones(4, 2), "a.lora_up.weight": torch.ones(2, 4)}, {})
    with pytest.raises(ConfigError, match="does not say what its unit is"):
        dylora_split(bare, tmp_path / "out")
    save_artefact(tmp_path / "other.safetensors", {"a.hada_w1_a": torch.ones(4, 2)}, {})
    with pytest.raises(ModelFileError, match="is no DyLoRA"):
        dylora_split(tmp_path / "other.safetensors", tmp_path / "out", [1])
    with pytest.raises(ModelFileError, match="does not exist"):
        dylora_split(tmp_path / "nowhere.safetensors", tmp_path / "out", [1])


def test_the_command(trained, capsys):
    _, _, path = trained
    assert main(["dylora-split", str(path), "--ranks", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["files"] == [str(path.parent / "cat-0004.safetensors")]
    assert main(["dylora-split", str(path), "--ranks", "4"]) == 2
