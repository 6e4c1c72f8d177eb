"""Made checkpoints have the names, shapes and sizes of real ones; diffusers' own conversion of single files is the judge."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch

from trainer import bench_files
from trainer.config import BaseSection
from trainer.families import FAMILIES
from trainer.families.weights import open_weights

# What the families' model cards and papers count: millions of weights are exact numbers here.
PARAMETERS = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
}
KINDS = {"sd15": "v1", "sd2": "v2", "sdxl": "xl_base"}


def meta(tensors) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in tensors}


def shapes_of(tensors) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("text_model."): tuple(tensor.shape) for name, tensor in tensors.items() if not name.endswith("position_ids")}


@pytest.mark.parametrize("family", KINDS)
def test_a_made_checkpoint_is_a_real_one_to_diffusers(family):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as single
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    spec = FAMILIES[family].spec
    made = meta(bench_files.checkpoint_shapes(spec))
    assert single.infer_diffusers_model_type(made) == KINDS[family]
    own = {"use_linear_projection": family != "sd15"}  # since Stable Diffusion 2 the files have linear projections
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**{**spec.configs["unet"], **own}), AutoencoderKL(**spec.configs["vae"])
    found = {
        "unet": single.convert_ldm_unet_checkpoint(dict(made), unet.config),
        "vae": single.convert_ldm_vae_checkpoint(dict(made), vae.config),
    }
    expected = {"unet": unet, "vae": vae}
    for part in spec.text_parts:
        config = CLIPTextConfig(**spec.configs[part.name])
        if part.openclip:
            network = SimpleNamespace(config=config)
            found[part.name] = single.convert_open_clip_checkpoint(network, dict(made), prefix=part.prefix)
        else:
            found[part.name] = single.convert_ldm_clip_checkpoint(dict(made), remove_prefix=part.prefix)
        with torch.device("meta"):
            expected[part.name] = (CLIPTextModelWithProjection if part.pooled else CLIPTextModel)(config)
    for name, network in expected.items():
        assert shapes_of(found[name]) == shapes_of(network.state_dict()), name
        assert sum(tensor.numel() for key, tensor in found[name].items() if "position_ids" not in key) == PARAMETERS[family][name], name
    numbers = sum(tensor.numel() for tensor in made.values())
    assert numbers == sum(PARAMETERS[family].values()), "and nothing else is in it"


@pytest.mark.parametrize("family", list(tiny.TINY))
def test_the_written_file_loads_and_is_written_once(tmp_path, monkeypatch, family):
    small = tiny.family_of(family)
    monkeypatch.setattr(bench_files, "FAMILIES", {family: small})
    path = bench_files.random_checkpoint(tmp_path / "made.safetensors", family)
    before = path.stat().st_mtime_ns
    assert bench_files.random_checkpoint(path, family) == path and path.stat().st_mtime_ns == before
    assert small.recognise(open_weights(path).shapes)
    assert open_weights(path).shapes == dict(bench_files.checkpoint_shapes(small.spec))
    own = str(tiny.write_tokenizer(tmp_path / "small"))  # the made one has as many words as the real ones
    model = small.load(BaseSection(checkpoint=str(path), prediction="epsilon", tokenizer=own), torch.device("cpu"), torch.float32)
    with torch.no_grad():
        text = small.encode_text(model, ["a"])
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        answer = small.predict(model, latents, torch.tensor([500]), text | {"sizes": torch.tensor([[64, 64, 0, 0, 64, 64]])})
    assert 0.01 < float(answer.std()) < 100, "neither dead nor exploding"
