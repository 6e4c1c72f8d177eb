"""The family's code on a tiny model: every file layout loads the same weights, and the numbers are those of diffusers."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from trainer.config import BaseSection
from trainer.errors import ConfigError, ModelFileError
from trainer.families import FAMILIES, find_family
from trainer.families.keys import rename, unet_table, vae_table
from trainer.families.sd import StableDiffusion

TINY_CONFIGS = {"unet": tiny.TINY_UNET, "vae": tiny.TINY_VAE, "text_encoder": tiny.TINY_TEXT}
TINY_FAMILY = StableDiffusion(dataclasses.replace(FAMILIES["sd15"].spec, configs=TINY_CONFIGS))
PARTS = ("unet", "vae", "text_encoder")


def load(path: Path, dtype: torch.dtype = torch.float32, **section):
    return TINY_FAMILY.load(BaseSection(checkpoint=str(path), **section), torch.device("cpu"), dtype)


def folder_tensors(base: Path, part: str) -> dict[str, torch.Tensor]:
    return load_file(next((base / part).glob("*.safetensors")))


def ldm_vae(base: Path) -> dict[str, torch.Tensor]:
    """The VAE under LDM names without prefix, its attention as 1x1 convolutions."""
    state = folder_tensors(base, "vae")
    names = rename(state, vae_table(tiny.TINY_VAE), to_ldm=True)
    attention = (".q.weight", ".k.weight", ".v.weight", ".proj_out.weight")
    return {names[name]: tensor[:, :, None, None] if names[name].endswith(attention) else tensor for name, tensor in state.items()}


def ldm_tensors(base: Path) -> dict[str, torch.Tensor]:
    """The whole model as a single file holds it."""
    unet = folder_tensors(base, "unet")
    names = rename(unet, unet_table(tiny.TINY_UNET), to_ldm=True)
    result = {"model.diffusion_model." + names[name]: tensor for name, tensor in unet.items()}
    result |= {"first_stage_model." + name: tensor for name, tensor in ldm_vae(base).items()}
    for name, tensor in folder_tensors(base, "text_encoder").items():
        result["cond_stage_model.transformer.text_model." + name.removeprefix("text_model.")] = tensor
    result["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    result["model_ema.decay"] = torch.tensor(0.9999)
    return {name: tensor.contiguous() for name, tensor in result.items()}


@pytest.fixture(scope="module")
def single_file(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    tiny.write_tokenizer(folder / "tokenizer")
    save_file(ldm_tensors(base), folder / "model.safetensors")
    torch.save({"state_dict": ldm_tensors(base), "global_step": 840000}, folder / "model.ckpt")
    return folder


@pytest.fixture(scope="module")
def model(base):
    return load(base)


def network(model, part: str) -> torch.nn.Module:
    return model.text_encoders[part] if part in model.text_encoders else getattr(model, part)


def assert_equal_parts(found, expected, parts=PARTS):
    for part in parts:
        assert tiny.differing(network(found, part).state_dict(), network(expected, part).state_dict()) == []


def test_a_folder_holds_what_was_saved_in_it(base, model):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    for part, library in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)):
        loaded = network(model, part)
        assert tiny.differing(loaded.state_dict(), library.from_pretrained(base / part).state_dict()) == []
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_a_single_file_loads_equal_to_the_folder(single_file, model, ending):
    path = single_file / f"model{ending}"
    assert find_family(str(path), "auto", {"tiny": TINY_FAMILY}) is TINY_FAMILY
    loaded = load(path)
    assert_equal_parts(loaded, model)
    assert loaded.identity == model.identity
    assert loaded.tokenizer.ids("a cat") == model.tokenizer.ids("a cat")


def test_a_single_file_whose_text_encoder_lacks_the_inner_prefix_loads(base, model, tmp_path):
    tiny.write_tokenizer(tmp_path / "tokenizer")
    tensors = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in ldm_tensors(base).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert_equal_parts(load(tmp_path / "model.safetensors"), model)


@pytest.mark.parametrize("prefix", ["", "text_model."])
@pytest.mark.parametrize("ending", ["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"])
def test_text_encoder_files_of_every_library_version_load(base, model, tmp_path, prefix, ending):
    shutil.copytree(base, tmp_path / "base")
    folder = tmp_path / "base" / "text_encoder"
    tensors = {prefix + name.removeprefix("text_model."): tensor for name, tensor in folder_tensors(base, "text_encoder").items()}
    next(folder.glob("*.safetensors")).unlink()
    save_file(tensors, folder / ending) if ending.endswith("safetensors") else torch.save(tensors, folder / ending)
    assert_equal_parts(load(tmp_path / "base"), model, ["text_encoder"])


def test_number_formats_of_the_parts(base):
    for dtype, vae_dtype in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        loaded = load(base, dtype)
        assert (
            {p.dtype for p in loaded.unet.parameters()} == {p.dtype for p in loaded.text_encoders["text_encoder"].parameters()} == {dtype}
        )
        assert {p.dtype for p in loaded.vae.parameters()} == {vae_dtype}


@pytest.mark.parametrize(
    "form", ["ldm with prefix", "ldm without prefix", "diffusers", "diffusers, old attention names", "folder", "folder of a model", "ckpt"]
)
def test_an_external_vae_of_every_form_takes_the_place_of_the_own(base, model, tmp_path, form):
    other = tiny.write_base(tmp_path / "other", seed=5)
    state = folder_tensors(other, "vae")
    path = tmp_path / "vae.safetensors"
    if form == "ldm with prefix":
        save_file({"first_stage_model." + name: tensor for name, tensor in ldm_vae(other).items()}, path)
    elif form == "ldm without prefix":
        save_file({name: tensor.contiguous() for name, tensor in ldm_vae(other).items()}, path)
    elif form == "ckpt":
        path = path.with_suffix(".pt")
        torch.save({"state_dict": ldm_vae(other)}, path)
    elif form == "diffusers":
        save_file(state, path)
    elif form == "diffusers, old attention names":
        old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
        for new, name in old.items():
            state = {key.replace(new, name): tensor for key, tensor in state.items()}
        save_file(state, path)
    else:
        path = other / "vae" if form == "folder" else other
    loaded = load(base, vae=str(path))
    assert_equal_parts(loaded, load(other), ["vae"])
    assert_equal_parts(loaded, model, ["unet", "text_encoder"])
    assert loaded.identity["vae"] != model.identity["vae"]
    assert loaded.files["vae"] == path


@pytest.mark.parametrize("ending", [".vae.safetensors", ".vae.pt"])
def test_a_vae_beside_the_checkpoint_is_used_and_named(base, single_file, tmp_path, ending):
    other = tiny.write_base(tmp_path / "other", seed=5)
    for file in ("model.safetensors", "tokenizer"):
        (tmp_path / file).symlink_to(single_file / file)
    path = tmp_path / f"model{ending}"
    save_file(folder_tensors(other, "vae"), path) if ending.endswith("safetensors") else torch.save(ldm_vae(other), path)
    loaded = load(tmp_path / "model.safetensors")
    assert_equal_parts(loaded, load(other), ["vae"])
    assert loaded.files["vae"] == path
    assert [note.text for note in loaded.notes] == [f"using the VAE beside the checkpoint: {path}"]
    chosen = load(tmp_path / "model.safetensors", vae=str(base))
    assert_equal_parts(chosen, load(base), ["vae"])
    assert chosen.notes == ()


def test_clip_skip_of_the_configuration_reaches_the_text(base):
    """The state before the last layer goes through the final norm."""
    from transformers import CLIPTextModel

    reference = CLIPTextModel.from_pretrained(base / "text_encoder")
    first, second = load(base), load(base, clip_skip=2)
    (row,) = (first.tokenizer.row(chunk, None) for chunk in first.tokenizer.chunks("a cat"))
    with torch.no_grad():
        output = reference(torch.tensor([row]), output_hidden_states=True)
        norm = getattr(reference, "text_model", reference).final_layer_norm
        for model, expected in ((first, output.last_hidden_state), (second, norm(output.hidden_states[-2]))):
            torch.testing.assert_close(TINY_FAMILY.encode_text(model, ["a cat"])["context"], expected, rtol=1e-4, atol=1e-5)


def test_a_vae_that_is_none_is_refused(base, tmp_path):
    save_file({"encoder.layer.weight": torch.zeros(1)}, tmp_path / "text.safetensors")
    with pytest.raises(ModelFileError, match=r"base\.vae .*text\.safetensors is not a VAE"):
        load(base, vae=str(tmp_path / "text.safetensors"))


def test_missing_and_misshapen_tensors_are_named(base, tmp_path):
    tiny.write_tokenizer(tmp_path / "tokenizer")
    tensors = ldm_tensors(base)
    lost = "model.diffusion_model.out.2.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, tmp_path / "lost.safetensors")
    with pytest.raises(ModelFileError, match=r"lost\.safetensors: 1 tensors of the UNet are missing, for example conv_out\.weight"):
        load(tmp_path / "lost.safetensors")
    save_file({**tensors, lost: torch.zeros(4, 9, 3, 3)}, tmp_path / "wide.safetensors")
    with pytest.raises(ModelFileError, match=r"out\.2\.weight has shape \(4, 9, 3, 3\), but the UNet needs \(4, 32, 3, 3\)"):
        load(tmp_path / "wide.safetensors")


def test_a_folder_without_a_part_is_named(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / "vae")
    with pytest.raises(ModelFileError, match="vae holds none of"):
        load(tmp_path / "base")


def test_clip_skip_beyond_the_layers_is_refused(base):
    with pytest.raises(ConfigError, match=r"base\.clip_skip: 4 is more than the text encoder's 3 layers"):
        load(base, clip_skip=4)


def test_the_prediction_is_that_of_diffusers(base, model):
    from diffusers import UNet2DConditionModel

    generator = torch.Generator().manual_seed(1)
    noisy, context = torch.randn(2, 4, 8, 12, generator=generator), torch.randn(2, 77, 32, generator=generator)
    timesteps = torch.tensor([3, 801])
    with torch.no_grad():
        expected = UNet2DConditionModel.from_pretrained(base / "unet")(noisy, timesteps, encoder_hidden_states=context).sample
        found = TINY_FAMILY.predict(model, noisy, timesteps, {"context": context})
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_images_are_encoded_and_decoded_as_by_diffusers(base, model):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(base / "vae")
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mean * 0.18215
        latents = TINY_FAMILY.encode_images(model, pixels)
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
        assert latents.shape[1:] == TINY_FAMILY.latent_shape(model, (96, 64)) == (4, 8, 12)
        decoded = TINY_FAMILY.decode_latents(model, latents)
        torch.testing.assert_close(decoded, vae.decode(expected / 0.18215).sample, rtol=1e-3, atol=1e-4)
    assert decoded.shape == pixels.shape and decoded.dtype == torch.float32


def test_on_the_meta_device_no_weight_is_read(base):
    loaded = TINY_FAMILY.load(BaseSection(checkpoint=str(base)), torch.device("meta"), torch.bfloat16)
    for part in PARTS:
        assert {parameter.device.type for parameter in network(loaded, part).parameters()} == {"meta"}
    assert len(TINY_FAMILY.adapter_targets(loaded)) == len(TINY_FAMILY.adapter_targets(load(base)))
