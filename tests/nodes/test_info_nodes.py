"""LoRA Info and Find Odd Pictures beside a fake ComfyUI."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from loaded_pack import Pack
from safetensors.torch import save_file
from test_train_node import inputs

KEY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def test_a_file_and_how_it_fits_the_connected_model(pack: Pack) -> None:
    tensors = {
        f"{KEY}.lora_down.weight": torch.ones(4, 768),
        f"{KEY}.lora_up.weight": torch.ones(640, 4),
        f"{KEY}.alpha": torch.tensor(4.0),
    }
    metadata = {"ss_tag_frequency": '{"a": {"sks": 3}}', "ss_dataset_dirs": '{"a": {"img_count": 3}}'}
    save_file(tensors, pack.comfy.base / "models/loras/some.safetensors", metadata)
    answer = pack.call("LoraInfo", lora_name="some.safetensors", node_id="7")
    text, triggers, tags = answer["result"]
    assert "Stable Diffusion 1.5" in text and (triggers, tags) == ("sks", "sks")
    assert pack.comfy.texts[-1] == ("7", text) and "fit:" not in text

    def network(width: int) -> SimpleNamespace:
        weights = {KEY: torch.ones(640, width), "a.bias": torch.ones(4)}
        return SimpleNamespace(state_dict=lambda: weights)

    model, other = (SimpleNamespace(model=network(width)) for width in (768, 2048))
    clip = SimpleNamespace(cond_stage_model=SimpleNamespace(state_dict=lambda: {"third": torch.ones(2, 2)}))
    for sockets, count in (({"model": model}, 1), ({"model": other}, 0), ({"clip": clip}, 0), ({"model": model, "clip": clip}, 1)):
        assert f"fit: {count} of 1 modules" in pack.call("LoraInfo", lora_name="some.safetensors", **sockets)["result"][0]


def test_odd_pictures(pack: Pack) -> None:
    links = inputs(pack)
    answer = pack.call("OddPictures", base=links["base"], dataset=links["dataset"], precision="fp32", device="cpu")
    table, sheet, names = answer["result"]
    assert "too few" in table and names == "" and sheet.shape[0] == 1  # four pictures
    assert (pack.comfy.base / "temp" / answer["ui"]["images"][0]["filename"]).is_file()
