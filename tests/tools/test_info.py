"""What is said of adapter files whose content is known."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer.cli import main
from trainer.errors import ModelFileError
from trainer.metadata import with_hashes
from trainer.tools.info import fits, read_info
from trainer.tools.origin import read_origin

UNET, TEXT = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def lora(key: str, inputs: int, outputs: int, rank: int = 4, alpha: float | None = 2.0) -> dict[str, torch.Tensor]:
    made = {f"{key}.lora_down.weight": torch.ones(rank, inputs), f"{key}.lora_up.weight": torch.ones(outputs, rank)}
    return made | ({f"{key}.alpha": torch.tensor(alpha)} if alpha is not None else {})


def saved(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    ("tensors", "family", "kind"),
    [
        (lora(UNET, 768, 640), "Stable Diffusion 1.5", "LoRA"),
        (lora(UNET, 1024, 640), "Stable Diffusion 2", "LoRA"),
        (lora("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, 640), "Stable Diffusion XL", "LoRA"),
        (lora("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 2048, 640), "Stable Diffusion XL", "LoRA"),
        (lora(TEXT, 768, 768), "Stable Diffusion 1.5", "LoRA"),
        (lora(TEXT, 1024, 1024), "Stable Diffusion 2", "LoRA"),
        (lora("lora_te2_text_model_encoder_layers_3_self_attn_q_proj", 1280, 1280), "Stable Diffusion XL", "LoRA"),
        (lora("lora_unet_double_blocks_3_img_attn_qkv", 3072, 9216), "Flux", "LoRA"),
        (lora("something_else", 10, 10), None, "LoRA"),
        (
            {f"{UNET}.hada_{name}": torch.ones(shape) for name, shape in
             {"w1_a": (640, 4), "w1_b": (4, 768), "w2_a": (640, 4), "w2_b": (4, 768)}.items()},
            "Stable Diffusion 1.5",
            "LoHa",
        ),
        ({f"{UNET}.lokr_w1": torch.ones(8, 16), f"{UNET}.lokr_w2": torch.ones(80, 64)}, "Stable Diffusion 2", "LoKr"),
        ({**lora(UNET, 768, 640), f"{UNET}.dora_scale": torch.ones(1, 768)}, "Stable Diffusion 1.5", "DoRA over LoRA"),
        (
            {"lora_unet_down_blocks_1_resnets_0_conv1.lora_down.weight": torch.ones(4, 320, 3, 3),
             "lora_unet_down_blocks_1_resnets_0_conv1.lora_up.weight": torch.ones(640, 4, 1, 1), **lora(UNET, 768, 640)},
            "Stable Diffusion 1.5",
            "LoCon",
        ),
    ],
)  # fmt: skip
def test_family_and_kind(tmp_path, tensors, family, kind):
    info = read_info(saved(tmp_path / "a.safetensors", tensors))
    assert info.family == family and kind in info.kinds
    assert ("the model family is not recognised" in "\n".join(info.strange)) == (family is None)


def test_ranks_alphas_and_norms_by_block(tmp_path):
    """All ones: every number of ΔW is rank · alpha / rank = alpha, so its norm is alpha · sqrt(inputs · outputs)."""
    other = "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {**lora(UNET, 768, 640, 4, 2.0), **lora(other, 768, 1280, 8, 8.0), **lora(TEXT, 768, 768, 4, 1.0)}
    info = read_info(saved(tmp_path / "a.safetensors", tensors))
    assert [(block.block, block.modules, block.ranks, block.alphas) for block in info.blocks] == [
        ("BASE", 1, ("4",), ("1",)),
        ("IN04", 1, ("4",), ("2",)),
        ("OUT03", 1, ("8",), ("8",)),
    ]
    assert [block.norm for block in info.blocks] == pytest.approx([768, 2 * (768 * 640) ** 0.5, 8 * (768 * 1280) ** 0.5])
    assert info.numbers == 4 * (768 + 640) + 8 * (768 + 1280) + 4 * (768 + 768)


def test_everything_strange_is_named(tmp_path):
    names = [UNET.replace("0_attn2", f"{number}_attn2") for number in range(5)]
    tensors = {}
    for name in names:
        tensors |= lora(name, 768, 640)
    tensors[f"{names[0]}.lora_up.weight"] = torch.zeros(640, 4)
    tensors[f"{names[1]}.lora_down.weight"] = torch.full((4, 768), float("nan"))
    del tensors[f"{names[2]}.alpha"], tensors[f"{names[3]}.lora_up.weight"]
    tensors[f"{names[4]}.alpha"] = torch.tensor(64.0)
    tensors["what.is.this"] = torch.ones(2)
    text = read_info(saved(tmp_path / "a.safetensors", tensors)).strange
    for name, words in zip(names, ("ΔW is zero", "not finite", "no alpha", "only a part", "more than twice their rank"), strict=True):
        assert [words in line and name in line for line in text].count(True) == 1, words
    assert any("1 tensors are of no known kind" in line and "what.is.this" in line for line in text)
    assert any("no metadata" in line for line in text)


def test_hashes(tmp_path):
    tensors = lora(UNET, 768, 640)
    good = tmp_path / "good.safetensors"
    good.write_bytes(with_hashes(tensors, {"ss_steps": "10"}))
    info = read_info(good)
    assert info.hash_fits is True and info.sha256 == hashlib.sha256(good.read_bytes()).hexdigest()
    assert "fits the tensors" in info.lines()[1] and info.lines()[-1] == "nothing strange was found"
    changed = bytearray(good.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(changed)
    assert read_info(tmp_path / "changed.safetensors").hash_fits is False


def test_tags_and_trigger_words():
    def origin(tags: dict, folders: dict, **more: str):
        return read_origin({"ss_tag_frequency": json.dumps(tags), "ss_dataset_dirs": json.dumps(folders), **more})

    found = origin({"3_sks cat": {"sks": 10, "cat": 10, " red": 4}, "x": {"red": 3}}, {"3_sks cat": {"n_repeats": 3, "img_count": 10}})
    assert found.tags == {"cat": 10, "sks": 10, "red": 7}
    assert found.triggers == {"cat": "in nearly every caption", "sks": "in nearly every caption", "sks cat": "name of the folder"}
    sentences = {"zibu on a blue background": 1, "a small zibu at the top": 1, "Zibu in the sea": 2}
    found = origin({"10_zibu": sentences}, {"10_zibu": {"img_count": 4}}, **{"modelspec.trigger_phrase": "zibu!"})
    assert found.triggers == {"zibu!": "named in the metadata", "zibu": "in nearly every caption"}
    assert origin({"1_a": {"sks": 3}}, {"1_a": {"img_count": None}, "b": {"img_count": "many"}}).triggers == {"a": "name of the folder"}
    assert read_origin({"ss_tag_frequency": "{damaged", "ss_steps": "None"}).training == {}


def test_a_trained_file_through_the_command_line(job, base, tmp_path, capsys):
    from trainer import train

    file = train(job(method={"conv_rank": 2})).artefact
    assert main(["info", str(file), "--base", str(base), "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    answer = json.loads(last)
    assert answer["training"]["steps"] == "4" and answer["hash_fits"] is True
    assert set(answer["kinds"]) == {"LoRA", "LoCon"} and answer["tags"]["plain"] == 5
    assert {"plain", "flat"} <= set(answer["trigger_words"])
    assert answer["fits"].startswith("fits ") and "nothing is left over" in answer["fits"]
    assert any(line.startswith("trigger words: flat") for line in lines)


def test_a_file_for_another_model_does_not_fit(base, tmp_path):
    assert "does not fit" in fits(saved(tmp_path / "a.safetensors", lora(TEXT, 768, 768)), str(base))


def test_what_is_no_adapter(tmp_path):
    with pytest.raises(ModelFileError, match="holds no adapter"):
        read_info(saved(tmp_path / "a.safetensors", {"first_stage_model.decoder.conv_in.weight_": torch.ones(2)}))
