"""Block-wise settings of kohya's scripts and window become `method.blocks`."""

from __future__ import annotations

from trainer.config import AdapterSection, BlockSection, from_dict
from trainer.families.sd_specs import SD15
from trainer.kohya import convert
from trainer.kohya.read import Options
from trainer.methods.block_plan import plan_blocks

BASE = {"pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "train", "resolution": "512"}


def test_network_arguments_of_the_script():
    arguments = ["down_lr_weight=cosine+.25", "mid_lr_weight=0.5", "up_lr_weight=0,0,0,1,1,1,1,1,1,1,1,.5", "block_lr_zero_threshold=0.1"]
    found = convert(Options({**BASE, "network_args": arguments}))
    blocks = from_dict(found.values).method.blocks
    assert blocks == BlockSection(down="cosine+.25", mid="0.5", up="0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0.5", zero_threshold=0.1)
    plan = plan_blocks(AdapterSection(blocks=blocks), SD15)
    assert (plan.weights["IN00"], plan.weights["M00"], plan.weights["OUT02"], plan.weights["OUT11"]) == (1.25, 0.5, 0.0, 0.5)
    assert found.lost == []


def test_the_window():
    dims = ",".join(["4"] * 24 + ["8"])
    found = convert(Options({"lora_type": "Standard", **BASE, "down_lr_weight": "", "block_dims": dims, "block_alphas": "1"}, window=True))
    blocks = from_dict(found.values).method.blocks
    assert (blocks.down, blocks.ranks, blocks.alphas) == ("", dims, "1")
    assert plan_blocks(AdapterSection(blocks=blocks), SD15).sizes["ranks"]["OUT11"] == 8
