"""The block nodes: settings for training, loading with block weights, hooks, saving."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from loaded_pack import BLOCK_KEYS, Pack
from safetensors.torch import load_file


def up(lora: dict[str, torch.Tensor], block: str) -> float:
    return float(lora[f"{BLOCK_KEYS[block]}.lora_up.weight"][0, 0])


def test_block_settings_join_the_lora_settings(pack: Pack) -> None:
    (rank8,) = pack.call("Lora", rank=8)
    (section,) = pack.call("BlockWeights", lora=rank8, down="cosine+.25", mid="0.5", ranks="IN04=4", zero_threshold=0.1)
    assert section.rank == 8
    assert (section.blocks.down, section.blocks.mid, section.blocks.up) == ("cosine+.25", "0.5", "")
    assert (section.blocks.ranks, section.blocks.zero_threshold) == ("IN04=4", 0.1)
    (plain,) = pack.call("BlockWeights")
    assert plain == type(plain)()


def test_ones_are_what_load_lora_gives(pack: Pack, block_lora: Path) -> None:
    model, clip, table = pack.call(
        "LoadLoraBlockWeight", model="M", clip="C", lora_name="cat.safetensors", strength_model=0.8, strength_clip=0.5
    )
    stored = load_file(block_lora)
    assert (model[0], clip[0], model[2], clip[2]) == ("M", "C", 0.8, 0.5)
    for given in (model[1], clip[1]):
        assert given.keys() == stored.keys() and all(torch.equal(given[name], tensor) for name, tensor in stored.items())
    assert "Stable Diffusion 1 and 2, 4 modules" in table and "norm" not in table
    nothing = pack.call("LoadLoraBlockWeight", model="M", clip="C", lora_name="cat.safetensors", strength_model=0.0, strength_clip=0.0)
    assert nothing[:2] == ("M", "C")


def test_vector_rules_and_presets(pack: Pack, block_lora: Path) -> None:
    def load(**inputs):
        return pack.call("LoadLoraBlockWeight", model="M", clip="C", lora_name="cat.safetensors", **inputs)

    (_, given, _), _, table = load(vector="IN04=0.5, M00=0, BASE=2", rules="OUT:proj:0.25")
    assert [up(given, block) for block in ("IN04", "OUT03", "BASE")] == [0.5, 0.25, 2.0]
    assert not any("mid_block" in name for name in given)
    assert any(line.split() == ["IN04", "1", "0.5"] for line in table.splitlines())
    (_, given, _), _, _ = load(preset="OUTALL", vector="0.1")
    assert set(given) == {name for name in load_file(block_lora) if "up_blocks" in name or "lora_te" in name}
    (_, first, _), (_, second, _) = load(vector="R", seed=1)[0], load(vector="R", seed=2)[0]
    assert up(first, "IN04") != up(second, "IN04")


def test_own_presets_of_the_user(pack: Pack, block_lora: Path) -> None:
    file = pack.comfy.base / "user/lora_furnace/block_presets.txt"
    file.parent.mkdir(parents=True)
    file.write_text("MINE: IN04=0.75\n", encoding="utf-8")
    options = pack.node("LoadLoraBlockWeight").INPUT_TYPES()["required"]["preset"][0]
    assert options[0] == "vector" and {"MINE", "INS", "FLUXALL"} <= set(options)
    (_, given, _), _, _ = pack.call("LoadLoraBlockWeight", model="M", clip="C", lora_name="cat", preset="MINE")
    assert up(given, "IN04") == 0.75
    file.write_text("MINE\n", encoding="utf-8")
    assert "INS" in pack.node("LoadLoraBlockWeight").INPUT_TYPES()["required"]["preset"][0]
    with pytest.raises(Exception, match="line 1: 'MINE' is not written"):
        pack.call("LoadLoraBlockWeight", model="M", clip="C", lora_name="cat")


@pytest.mark.parametrize(("start", "stop", "frames"), [
    (0.0, 1.0, [(0.0, 1.0)]),
    (0.25, 1.0, [(0.0, 0.0), (0.25, 1.0)]),
    (0.0, 0.5, [(0.0, 1.0), (0.5, 0.0)]),
    (0.25, 0.5, [(0.0, 0.0), (0.25, 1.0), (0.5, 0.0)]),
])  # fmt: skip
def test_a_hook_acts_between_start_and_stop(pack: Pack, block_lora: Path, start, stop, frames) -> None:
    hooks, _ = pack.call("BlockWeightHook", lora_name="cat.safetensors", vector="0.5", start=start, stop=stop, strength_clip=0.3)
    assert (hooks.strength_model, hooks.strength_clip) == (1.0, 0.3)
    assert up(hooks.lora, "M00") == 0.5
    assert [(frame.start_percent, frame.strength) for frame in hooks.frames] == frames
    assert {frame.guarantee_steps for frame in hooks.frames} == {0}


def test_a_hook_that_would_never_act_is_refused(pack: Pack, block_lora: Path) -> None:
    with pytest.raises(Exception, match=r"stop: 0\.5 is not after start 0\.5"):
        pack.call("BlockWeightHook", lora_name="cat.safetensors", start=0.5, stop=0.5)


def test_saving(pack: Pack, block_lora: Path) -> None:
    def save(**inputs):
        return pack.call("SaveBlockWeightedLora", lora_name="cat.safetensors", **inputs)

    answer = save(vector="M00=0.5")
    name, table = answer["result"]
    assert name == "cat_blocks.safetensors" and "norm" in table
    assert up(load_file(block_lora.with_name(name)), "M00") == 0.5
    (picture,) = answer["ui"]["images"]
    assert (pack.comfy.base / "temp" / picture["filename"]).is_file()
    assert save(vector="M00=0.5")["result"][0] == name  # the same again
    with pytest.raises(Exception, match="exists already and is something else"):
        save(vector="M00=0.25")
    assert save(vector="M00=0.25", save_as="other")["result"][0] == "other.safetensors"
    with pytest.raises(Exception, match="save_as: .*cannot be a file name"):
        save(save_as="../x")
    from safetensors import safe_open

    with safe_open(str(block_lora.with_name("other.safetensors")), "pt") as file:
        assert file.metadata()["ss_output_name"] == "cat"
        assert json.loads(file.metadata()["lora_furnace_block_weights"])["source"] == "cat.safetensors"
