"""Reading weight files: whole ones, broken ones, foreign ones, malicious ones."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from trainer.errors import ConfigError, ModelFileError
from trainer.families import FAMILIES, find_family
from trainer.families.weights import open_weights

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
DTYPES += [torch.float8_e4m3fn, torch.float8_e5m2]


class WritesFile:
    """Its pickle, when executed, makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_tensors_of_every_number_format_read_back(tmp_path, ending):
    tensors = {str(dtype): torch.tensor([[0, 1], [1, 2]]).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4)}
    path = tmp_path / f"a{ending}"
    save_file(tensors, path) if ending == ".safetensors" else torch.save({"state_dict": tensors}, path)
    file = open_weights(path)
    assert file.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found = dict(file.read(set(tensors)))
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].float(), tensor.float())
    assert [name for name, _ in file.read({"scalar"})] == ["scalar"]


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("old_format", [True, False])
def test_ckpt_files_with_and_without_state_dict(tmp_path, wrapped, old_format):
    tensors = {"a": torch.arange(3.0)}
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": tensors, "global_step": 5} if wrapped else tensors, path, _use_new_zipfile_serialization=not old_format)
    assert open_weights(path).shapes == {"a": (3,)}


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_a_ckpt_with_a_payload_is_refused_and_never_executed(tmp_path, where):
    marker, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    payload = WritesFile(marker)
    torch.save({"state_dict": {"a": torch.zeros(1), **({"b": payload} if where == "inside" else {})}, "callbacks": payload}, path)
    with pytest.raises(ModelFileError, match="holds more than weights"):
        dict(open_weights(path).shapes)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # the payload was a live one


def test_a_bare_pickle_named_ckpt_is_refused_and_never_executed(tmp_path):
    marker, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(WritesFile(marker)))
    with pytest.raises(ModelFileError, match=r"evil\.ckpt"):
        dict(open_weights(path).shapes)
    assert not marker.exists()


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("kept", [0, 4, 9, 60, 0.5, 0.99])
def test_a_file_that_ends_early_is_refused(tmp_path, ending, kept):
    path = tmp_path / f"short{ending}"
    tensors = {f"layer.{number}": torch.randn(40, 40) for number in range(4)}
    save_file(tensors, path) if ending == ".safetensors" else torch.save({"state_dict": tensors}, path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(ModelFileError, match=f"short{ending}"):
        dict(open_weights(path).shapes)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{not json", b'"text"', b"\xff\xff\xff", b'{"a": 1}', b'{"a": {"shape": [1]}}', b'{"a": {"shape": [1], "data_offsets": []}}'],
)
def test_a_damaged_header_is_refused(tmp_path, header):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    with pytest.raises(ModelFileError, match=r"bad\.safetensors has a damaged safetensors header"):
        open_weights(path)


def test_numbers_of_a_kind_that_is_not_read_are_named(tmp_path):
    header = b'{"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"0")
    with pytest.raises(ModelFileError, match="a has numbers of the kind F4, which is not read here"):
        list(open_weights(tmp_path / "a.safetensors").read({"a"}))


def test_a_header_length_beyond_the_file_is_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + bytes(100))
    with pytest.raises(ModelFileError, match="is not a whole safetensors file"):
        open_weights(path)


def test_a_missing_file_and_an_unknown_ending_are_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"nowhere\.safetensors does not exist"):
        open_weights(tmp_path / "nowhere.safetensors")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match=r"ending '\.gguf'; expected \.safetensors or \.ckpt"):
        open_weights(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "a LoRA or other adapter file"),
        ("transformer.blocks.0.lora_A.weight", "a LoRA file"),
        ("lora_unet_x.hada_w1_a", "a LyCORIS adapter file"),
        ("control_model.input_hint_block.0.weight", "a ControlNet"),
        ("conditioner.embedders.1.model.ln_final.weight", "a cut-down SDXL"),
        ("conditioner.embedders.0.model.ln_final.weight", "the SDXL refiner"),
        ("edm_vpred.sigma_max", "an SDXL model with another noise schedule"),
        ("model.diffusion_model.label_emb.0.0.weight", "a Stable Diffusion 2 unCLIP model"),
        ("model.diffusion_model.input_blocks.3.0.op.weight", "a Stable Diffusion UNet without its text encoder"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "a Stable Diffusion 3 checkpoint"),
        ("double_blocks.0.img_attn.qkv.weight", "a Flux model"),
        ("decoder.conv_in.weight", "a VAE"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "a text encoder"),
        ("emb_params", "a textual inversion"),
        ("something.else", "an unknown file (2 tensors: "),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named_for_what_it_is(tmp_path, name, words):
    path = tmp_path / "file.safetensors"
    save_file({name: torch.zeros(2, 2), "model.diffusion_model.out.2.bias": torch.zeros(1)}, path)
    with pytest.raises(ModelFileError) as caught:
        find_family(str(path), "auto", FAMILIES)
    assert f"file.safetensors is {words}" in str(caught.value)
    assert "Stable Diffusion 1.5" in str(caught.value)


def test_an_sdxl_checkpoint_with_sd15_like_names_is_not_taken_for_sd15(tmp_path):
    """SDXL's UNet shares many names with SD 1.5; its context width is 2048."""
    prefix = "model.diffusion_model."
    names = ["input_blocks.0.0.weight", "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", "label_emb.0.0.weight"]
    tensors = {prefix + name: torch.zeros(4, 2048) for name in names}
    tensors |= {"conditioner.embedders.0.transformer.text_model.x": torch.zeros(1), "conditioner.embedders.1.model.y": torch.zeros(1)}
    save_file(tensors, tmp_path / "xl.safetensors")
    with pytest.raises(ModelFileError, match="is an inpainting or editing model .its UNet takes 2048 channels, not 4., which cannot"):
        find_family(str(tmp_path / "xl.safetensors"), "auto", FAMILIES)


@pytest.mark.parametrize("text", ["{broken", "[]", '"text"'])
def test_a_folder_with_a_damaged_index_is_named(tmp_path, text):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"model_index\.json"):
        find_family(str(tmp_path), "auto", FAMILIES)


def test_folders_that_are_no_sd15_are_named(tmp_path, base):
    with pytest.raises(ModelFileError, match=r"without model_index\.json \(found: nothing\)"):
        find_family(str(tmp_path), "auto", FAMILIES)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLInpaintPipeline"}))
    with pytest.raises(ModelFileError, match="is a diffusers folder of StableDiffusionXLInpaintPipeline"):
        find_family(str(tmp_path), "auto", FAMILIES)
    assert find_family(str(base), "auto", FAMILIES).spec.name == "sd15"
    assert find_family(str(base), "sd15", FAMILIES).spec.name == "sd15"


def test_an_unknown_family_name_lists_the_known_ones(base):
    with pytest.raises(ConfigError, match=r"base\.family: 'sd51' is unknown; known: auto, sd15, sd2, sdxl"):
        find_family(str(base), "sd51", FAMILIES)


def test_a_checkpoint_of_another_family_than_wanted_is_named(base):
    families = {"other": type("Other", (), {"spec": FAMILIES["sd15"].spec, "recognise_folder": lambda *_: False})(), **FAMILIES}
    with pytest.raises(ModelFileError, match=r"is Stable Diffusion 1\.5 \(sd15\), but base\.family is 'other'; set it to auto"):
        find_family(str(base), "other", families)
