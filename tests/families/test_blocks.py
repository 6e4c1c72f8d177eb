"""Blocks by name: every way of writing a layer's name leads to the same block."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from trainer.errors import ModelFileError
from trainer.families.blocks import BLOCK_TABLES, FLUX, SDXL, STABLE_DIFFUSION, find_block_table

GOLDEN = Path(__file__).parents[1] / "golden" / "kohya_sd15.json"
ATTENTION = "transformer_blocks_0_attn1_to_q"
DOTTED = "transformer_blocks.0.attn1.to_q"

STABLE_DIFFUSION_NAMES = {
    f"lora_unet_down_blocks_0_attentions_0_{ATTENTION}": "IN01",
    "lora_unet_down_blocks_0_resnets_1_conv1": "IN02",
    "lora_unet_down_blocks_0_downsamplers_0_conv": "IN03",
    f"lora_unet_down_blocks_1_attentions_0_{ATTENTION}": "IN04",
    "lora_unet_down_blocks_2_attentions_1_proj_in.lora_up.weight": "IN08",
    "lora_unet_down_blocks_2_downsamplers_0_conv": "IN09",
    "lora_unet_down_blocks_3_resnets_0_conv2": "IN10",
    "lora_unet_down_blocks_3_resnets_1_time_emb_proj": "IN11",
    "lora_unet_mid_block_attentions_0_proj_out": "M00",
    "lora_unet_mid_block_resnets_1_conv1": "M00",
    "lora_unet_up_blocks_0_resnets_0_conv1": "OUT00",
    "lora_unet_up_blocks_0_upsamplers_0_conv": "OUT02",
    f"lora_unet_up_blocks_1_attentions_0_{ATTENTION}": "OUT03",
    "lora_unet_up_blocks_1_upsamplers_0_conv": "OUT05",
    f"lora_unet_up_blocks_3_attentions_2_{ATTENTION}": "OUT11",
    "lora_unet_conv_in": "IN00",
    f"diffusion_model.input_blocks.10.1.{DOTTED}.lora_up.weight": "IN10",
    f"diffusion_model.input_blocks.1.1.{DOTTED}.lora_up.weight": "IN01",
    f"unet.up_blocks.2.attentions.1.{DOTTED}.lora_A.weight": "OUT07",
    f"lycoris_down_blocks_1_attentions_1_{ATTENTION}.hada_w1_a": "IN05",
    "lora_te_text_model_encoder_layers_0_mlp_fc1": "BASE",
    "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": "BASE",
    "lora_unet_time_embedding_linear_1": None,
    "lora_something_down_blocks_0_resnets_0_conv1": None,
}
SDXL_NAMES = {
    f"lora_unet_input_blocks_4_1_{ATTENTION}": "IN04",
    "lora_unet_input_blocks_3_0_op": "IN03",
    f"lora_unet_middle_block_1_{ATTENTION}": "M01",
    "lora_unet_middle_block_0_in_layers_2": "M00",
    "lora_unet_middle_block_2_out_layers_3": "M02",
    "lora_unet_output_blocks_2_2_conv": "OUT02",
    "lora_unet_output_blocks_8_0_skip_connection": "OUT08",
    f"lora_unet_output_blocks_0_1_{ATTENTION.replace('to_q', 'to_out_0')}": "OUT00",
    "lora_unet_label_emb_0_0": "EMB",
    "lora_unet_out_2": "FINAL",
    f"unet.mid_block.attentions.0.{DOTTED}.lora_B.weight": "M01",
    f"unet.up_blocks.0.attentions.2.{DOTTED}.lora_B.weight": "OUT02",
    "lora_te2_text_model_encoder_layers_31_mlp_fc2": "BASE",
}
FLUX_NAMES = {
    "lora_unet_double_blocks_18_img_attn_qkv": "D18",
    "lora_unet_single_blocks_1_linear1": "S01",
    "lora_unet_single_blocks_10_linear1": "S10",
    "transformer.transformer_blocks.3.attn.to_q.lora_A.weight": "D03",
    "transformer.single_transformer_blocks.37.proj_mlp.lora_B.weight": "S37",
    "lora_transformer_single_transformer_blocks_2_proj_mlp.lora_up.weight": "S02",
    "lora_unet_img_in": "IN",
    "lora_unet_final_layer_linear": "OUT",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1": "CLIP",
    "lora_te3_encoder_block_0_layer_0_SelfAttention_q": "T5",
    "text_encoder_2.encoder.block.0": "T5",
}


@pytest.mark.parametrize(
    ("table", "name", "block"),
    [(table, *pair) for table, names in ((STABLE_DIFFUSION, STABLE_DIFFUSION_NAMES), (SDXL, SDXL_NAMES), (FLUX, FLUX_NAMES))
     for pair in names.items()],
)  # fmt: skip
def test_a_name_belongs_to_its_block(table, name, block):
    assert table.block_of(name) == block


def test_a_plain_lora_has_twelve_layers_in_each_of_sixteen_blocks():
    keys = [entry[0] for entry in json.loads(GOLDEN.read_text())]
    counts = Counter(STABLE_DIFFUSION.block_of(key) for key in keys)
    assert counts.pop("BASE") == 72
    assert set(counts.values()) == {12}
    numbers = [list(STABLE_DIFFUSION.blocks).index(name) for name in sorted(counts, key=list(STABLE_DIFFUSION.blocks).index)]
    assert numbers == [1, 2, 4, 5, 7, 8, 12, *range(16, 25)]  # kohya's indices


def test_a_plain_sdxl_lora_has_the_layers_that_kohya_counts():
    """22 where two transformer layers are, 102 where ten are; numbers of the 23 entries as in kohya's training vectors."""
    keys = [entry[0] for entry in json.loads(GOLDEN.with_name("kohya_sdxl.json").read_text())]
    counts = Counter(SDXL.block_of(key) for key in keys)
    assert counts.pop("BASE") == 264
    numbers = {list(SDXL.blocks).index(name): count for name, count in counts.items()}
    assert numbers == dict.fromkeys((5, 6, 16, 17, 18), 22) | dict.fromkeys((8, 9, 11, 13, 14, 15), 102)


@pytest.mark.parametrize(("table", "lengths"), [(STABLE_DIFFUSION, {16, 17, 25, 26}), (SDXL, {12, 20, 23}), (FLUX, {61})])
def test_layouts_name_known_blocks_once(table, lengths):
    assert {len(layout) for layout in table.layouts} == lengths
    for layout in table.layouts:
        names = [name for entry in layout for name in table.expand(entry)]
        assert len(names) == len(set(names)) and set(names) <= set(table.names)
    assert set(table.levels) == set(table.blocks)
    assert table.blocks.keys() >= {name for part in table.parts.values() for name in part}


def test_the_table_is_found_from_the_names():
    for table, names in zip((STABLE_DIFFUSION, SDXL, FLUX), (STABLE_DIFFUSION_NAMES, SDXL_NAMES, FLUX_NAMES), strict=True):
        assert find_block_table(names) is table
    assert find_block_table([f"lora_unet_down_blocks_1_attentions_0_{ATTENTION}"]) is STABLE_DIFFUSION
    assert find_block_table([f"lora_unet_input_blocks_4_1_{ATTENTION}"]) is SDXL  # kohya's names
    assert find_block_table(["unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q.lora_A.weight"]) is SDXL
    assert find_block_table(["lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_unet_double_blocks_0_img_attn_qkv"]) is FLUX
    for foreign in ("lora_unet_joint_blocks_0_x_block_attn_qkv", "transformer.transformer_blocks.1.attn.to_q.lora_A.weight"):
        with pytest.raises(ModelFileError, match="no tensor belongs to a block of Flux, Stable Diffusion"):
            find_block_table([foreign])


def test_ranges_follow_the_order_of_the_table():
    assert STABLE_DIFFUSION.expand("in10-out01") == ("IN10", "IN11", "M00", "OUT00", "OUT01")
    assert SDXL.expand("M00-M02") == ("M00", "M01", "M02")
    with pytest.raises(KeyError):
        SDXL.expand("IN11")
    assert len({table.title for table in BLOCK_TABLES}) == 3
