"""The block analysis nodes beside a fake ComfyUI; tests/comfyui compares the native one's pixels with ComfyUI's own nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loaded_pack import BLOCK_KEYS, Pack
from safetensors.torch import save_file
from test_train_node import inputs

SIDE = 10


@pytest.fixture
def drawn(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Pictures of ten rows; the block IN04 paints four of them, M00 one. Collects what was drawn."""
    host, calls = pack.part("nodes.host"), []

    def sample(model, positive, negative, settings):
        _, tensors, strength = model
        calls.append((settings.seed, positive, negative, strength))
        picture = torch.full((1, SIDE, SIDE, 3), 0.1)
        for block, rows in (("IN04", slice(0, 4)), ("M00", slice(4, 5))):
            up = tensors.get(f"{BLOCK_KEYS[block]}.lora_up.weight")
            picture[:, rows] += 0.5 * float(up[0, 0]) if up is not None else 0
        return picture

    monkeypatch.setattr(host, "encode_text", lambda clip, text: text)
    monkeypatch.setattr(host, "sample", sample)
    monkeypatch.setattr(host, "decode", lambda vae, latents: latents)
    return calls


def analyse(pack: Pack, **options):
    return pack.call("BlockAnalysis", model="M", clip="C", vae="V", lora_name="cat.safetensors", prompt="a\ncat", **options)


def test_native(pack: Pack, block_lora: Path, drawn: list[tuple]) -> None:
    answer = analyse(pack, seed=5, seeds=2, negative="bad", node_id="9")
    chart, sheet, table, text, vector = answer["result"]
    assert drawn == [(seed, "a cat", "bad", 1.0) for _ in range(5) for seed in (5, 6)]  # as it is, BASE, IN04, M00, OUT03
    found = {line.split()[0]: line.split()[2] for line in table.splitlines() if line.split()[1:2] == ["0"]}
    assert found == {"BASE": "0.00%", "IN04": "40.00%", "M00": "10.00%", "OUT03": "0.00%"}
    assert text.splitlines()[3] == "IN04,0,5,0.400000,0.250000"
    (_, given, _), _, _ = pack.call("LoadLoraBlockWeight", model="M", clip="C", lora_name="cat.safetensors", vector=vector)
    assert {block for block, key in BLOCK_KEYS.items() if f"{key}.lora_up.weight" in given} == {"IN04", "M00"}
    assert chart.shape[0] == sheet.shape[0] == 1 and len(answer["ui"]["images"]) == 2
    assert pack.comfy.texts[-1] == ("9", "picture 10/10")


def test_ratios_sets_and_a_reference_of_its_own(pack: Pack, block_lora: Path, drawn: list[tuple]) -> None:
    chart, _, table, _, _ = analyse(pack, vector="0", sets="IN04 M00, OUT03", ratios="0.5, 1")["result"]
    assert chart.shape[0] == 2
    lines = [line.split() for line in table.splitlines()]
    assert ["IN04", "M00", "0.5", "50.00%", "50.00%", "50.00%", "50.00%"] in lines
    assert ["OUT03", "1", "0.00%", "0.00%", "0.00%", "25.00%"] in lines


def test_cancel_ends_it_at_the_next_picture(pack: Pack, block_lora: Path, drawn: list[tuple]) -> None:
    pack.comfy.cancelled.set()
    with pytest.raises(pack.part("nodes.host").Interrupted):
        analyse(pack)
    assert len(drawn) == 1


@pytest.mark.parametrize(("wrong", "message"), [
    ({"prompt": " \n"}, "prompt: write what is to be drawn"),
    ({"sets": "IN05"}, "sets: 'IN05' has no layer in this file; its blocks: BASE, IN04, M00, OUT03"),
    ({"ratios": "much"}, "'much' is neither a number"),
    ({"vector": "1,1"}, "vector: 2 values do not fit"),
])  # fmt: skip
def test_mistakes(pack: Pack, block_lora: Path, drawn: list[tuple], wrong: dict[str, str], message: str) -> None:
    with pytest.raises(pack.part("trainer.errors").ConfigError, match=message):
        pack.call("BlockAnalysis", model="M", clip="C", vae="V", lora_name="cat.safetensors", **{"prompt": "x"} | wrong)
    assert drawn == []


def test_trainers_sampler(pack: Pack) -> None:
    name = pack.call("TrainLora", **inputs(pack))["result"][0]
    answer = pack.call(
        "BlockAnalysisTrainer", base=pack.base(), lora_name=name, sets="M00", prompt="a", steps=1, precision="fp32", node_id="9"
    )
    _, _, table, _, _ = answer["result"]
    assert table.splitlines()[2].split()[:2] == ["M00", "0"]
    assert pack.comfy.texts[-1] == ("9", "picture 2/2")


def test_a_file_for_another_model_is_refused(pack: Pack) -> None:
    key, path = BLOCK_KEYS["M00"], pack.comfy.base / "models/loras/big.safetensors"
    save_file({f"{key}.lora_up.weight": torch.ones(1280, 2), f"{key}.lora_down.weight": torch.ones(2, 1280)}, path)
    with pytest.raises(Exception, match="is for another model"):
        pack.call("BlockAnalysisTrainer", base=pack.base(), lora_name="big", prompt="a", steps=1, precision="fp32")
