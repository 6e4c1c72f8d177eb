"""The strength tests beside a fake ComfyUI; tests/comfyui compares the native one's pixels with ComfyUI's own nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loaded_pack import Pack
from test_train_node import inputs


@pytest.fixture
def lora(pack: Pack) -> str:
    return pack.call("TrainLora", **inputs(pack))["result"][1]


def test_trainers_sampler(pack: Pack, lora: str) -> None:
    answer = pack.call(
        "StrengthTestTrainer", base=pack.base(), loras=lora, strengths="0-1/0.5", prompts="a\nb", steps=1, precision="fp32", node_id="9"
    )
    grids, images = answer["result"]
    assert len(grids) == 2 and images.shape == (6, 64, 64, 3)
    assert len(answer["ui"]["images"]) == 2
    assert all((pack.comfy.base / "temp" / shown["filename"]).is_file() for shown in answer["ui"]["images"])
    assert pack.comfy.texts[-1] == ("9", "picture 6/6")


def test_native_order(pack: Pack, lora: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt by prompt, strength by strength, file by file; strength 0 is drawn once."""
    second = pack.comfy.base / "models/loras/second.safetensors"
    second.write_bytes(b"another content")
    host = pack.part("nodes.host")
    drawn = []

    def sample(model, positive, negative, settings):
        drawn.append((model, positive))
        return torch.full((1, 8, 8, 3), len(drawn) / 100)

    monkeypatch.setattr(host, "load_lora", lambda path: path.stem)
    monkeypatch.setattr(host, "apply_lora", lambda model, clip, lora, strength, _: ((lora, strength) if strength else None, clip))
    monkeypatch.setattr(host, "encode_text", lambda clip, text: text)
    monkeypatch.setattr(host, "sample", sample)
    monkeypatch.setattr(host, "decode", lambda vae, latents: latents)
    answer = pack.call("StrengthTest", model=0, clip=0, vae=0, loras=f"{lora}\nsecond.safetensors", strengths="0 1", prompts="a\nb")
    first = Path(lora).stem
    assert drawn == [(0, "a"), (0, "b"), ((first, 1.0), "a"), ((first, 1.0), "b"), (("second", 1.0), "a"), (("second", 1.0), "b")]
    order = [round(float(picture[0, 0, 0]) * 100) for picture in answer["result"][1]]
    assert order == [1, 1, 3, 5, 2, 2, 4, 6]


@pytest.mark.parametrize("name", ["StrengthTest", "StrengthTestTrainer", "Advice", "Grid", "GridTrainer"])
def test_a_replaced_file_is_noticed(pack: Pack, name: str) -> None:
    node, file = pack.node(name), pack.comfy.base / "models/loras/a.safetensors"
    missing = node.IS_CHANGED(loras="a")
    file.write_bytes(b"first")
    first = node.IS_CHANGED(loras="a", vae=None)
    file.write_bytes(b"another")
    assert len({missing, first, node.IS_CHANGED(loras="a")}) == 3
    assert node.IS_CHANGED(loras=None) == node.IS_CHANGED(loras="")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"loras": " \n"}, "loras: write at least one"), ({"prompts": ""}, "prompts: write at least one"), ({"strengths": "much"}, "'much'")],
)
def test_mistakes(pack: Pack, wrong: dict[str, str], message: str) -> None:
    (pack.comfy.base / "models/loras/a.safetensors").write_bytes(b"")
    with pytest.raises(pack.part("trainer.errors").ConfigError, match=message):
        pack.call("StrengthTestTrainer", **{"base": pack.base(), "loras": "a", "prompts": "a"} | wrong)


def test_unknown_lora_names_similar_ones(pack: Pack) -> None:
    (pack.comfy.base / "models/loras/kitten.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"kitten\.safetensors"):
        pack.call("StrengthTestTrainer", base=pack.base(), loras="kitten-2", prompts="a")
