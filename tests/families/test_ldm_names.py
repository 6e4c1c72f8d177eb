"""The name tables against diffusers' own converters; values are names, so a value shows where its tensor went."""

from __future__ import annotations

import pytest
import tiny
import torch

from trainer.families.keys import is_linear_attention, rename, unet_table, vae_table
from trainer.families.sd_specs import UNET, VAE

UNETS = {"real": UNET, "tiny": tiny.TINY_UNET}
VAES = {"real": VAE, "tiny": tiny.TINY_VAE}


def unet_on_meta(config):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def vae_on_meta(config):
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        return AutoencoderKL(**config)


@pytest.mark.parametrize("size", UNETS)
def test_unet_names_are_those_of_diffusers_converter(size):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = unet_on_meta(UNETS[size])
    own = list(unet.state_dict())
    table = unet_table(UNETS[size])
    to_ldm = rename(own, table, to_ldm=True)
    assert len(set(to_ldm.values())) == len(own)

    converted = convert_ldm_unet_checkpoint({"model.diffusion_model." + ldm: ldm for ldm in to_ldm.values()}, dict(unet.config))
    assert converted == {name: to_ldm[name] for name in own}
    assert rename(to_ldm.values(), table) == {ldm: name for name, ldm in to_ldm.items()}


@pytest.mark.parametrize("size", VAES)
def test_vae_names_are_those_of_diffusers_converter(size):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    vae = vae_on_meta(VAES[size])
    state = vae.state_dict()
    table = vae_table(VAES[size])
    to_ldm = rename(state, table, to_ldm=True)
    assert len(set(to_ldm.values())) == len(state)

    def stored(name):
        """A meta tensor in the shape that LDM files have."""
        return state[name][:, :, None, None] if is_linear_attention(name) else state[name]

    converted = convert_ldm_vae_checkpoint({"first_stage_model." + ldm: stored(name) for name, ldm in to_ldm.items()}, dict(vae.config))
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }
    # Shapes repeat, so names are compared once more, one tensor at a time marked by its length.
    marks = {ldm: torch.empty(number + 1, device="meta") for number, ldm in enumerate(to_ldm.values())}
    marked = convert_ldm_vae_checkpoint({"first_stage_model." + ldm: mark for ldm, mark in marks.items()}, dict(vae.config))
    assert {name: len(mark) for name, mark in marked.items()} == {name: len(marks[ldm]) for name, ldm in to_ldm.items()}
    assert rename(to_ldm.values(), table) == {ldm: name for name, ldm in to_ldm.items()}


def test_well_known_names_of_stable_diffusion_1_5():
    known = {
        "time_embed.0.weight": "time_embedding.linear_1.weight",
        "input_blocks.0.0.bias": "conv_in.bias",
        "input_blocks.3.0.op.weight": "down_blocks.0.downsamplers.0.conv.weight",
        "input_blocks.4.0.skip_connection.weight": "down_blocks.1.resnets.0.conv_shortcut.weight",
        "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight",
        "middle_block.1.proj_in.weight": "mid_block.attentions.0.proj_in.weight",
        "output_blocks.2.1.conv.weight": "up_blocks.0.upsamplers.0.conv.weight",
        "output_blocks.5.2.conv.weight": "up_blocks.1.upsamplers.0.conv.weight",
        "output_blocks.11.0.in_layers.2.weight": "up_blocks.3.resnets.2.conv1.weight",
        "out.2.weight": "conv_out.weight",
    }
    assert rename(known, unet_table(UNET)) == known


def test_a_name_that_no_prefix_fits_stays():
    assert rename(["position_ids", "input_blocks.99.0.x"], unet_table(UNET)) == {
        "position_ids": "position_ids",
        "input_blocks.99.0.x": "input_blocks.99.0.x",
    }
