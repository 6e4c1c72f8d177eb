"""The block analysis in a real ComfyUI: its pictures are those of Load LoRA and KSampler with the file, and with re-weighted ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import drawn, model_and_latent, pictures, use
from harness import Comfy
from safetensors.torch import save_file

from trainer.block_weights import read_lora, save_weighted, weight_blocks

GOLDEN = Path(__file__).resolve().parents[1] / "golden/kohya_sd15.json"
LAYERS = {"M00": "lora_unet_mid_block_attentions_0_", "OUT03": "lora_unet_up_blocks_1_attentions_0_", "BASE": "lora_te_"}
SIZE = 128  # smaller cells are enlarged on the sheet
TRIALS = ("M00", "OUT03 BASE")


def lora_of_three_blocks(path: Path) -> Path:
    """Strong enough to be seen; all other blocks of Stable Diffusion 1.5 are absent."""
    generator, tensors = torch.Generator().manual_seed(1), {}
    for key, down, up in json.loads(GOLDEN.read_text(encoding="utf-8")):
        if key.startswith(tuple(LAYERS.values())):
            tensors[f"{key}.lora_down.weight"] = torch.randn(down, generator=generator) * 0.1
            tensors[f"{key}.lora_up.weight"] = torch.randn(up, generator=generator) * 0.1
            tensors[f"{key}.alpha"] = torch.tensor(4.0)
    save_file(tensors, path)
    return path


def places(sheet: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """Where a picture lies in a larger one, pixel for pixel: (row, column)."""
    views = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    likely = np.argwhere((views[:, :, 0, 0] == picture[0, 0]).all(-1) & (views[:, :, -1, -1] == picture[-1, -1]).all(-1))
    return [(int(row), int(column)) for row, column in likely if np.array_equal(views[row, column], picture)]


@pytest.mark.timeout(1500)
def test_its_pictures_are_those_of_load_lora_with_the_reweighted_files(comfy: Comfy, checkpoint: str) -> None:
    folder = comfy.base / "models/loras"
    lora = lora_of_three_blocks(folder / "blocks.safetensors")
    files = {"as it is": lora.name}
    for name in TRIALS:
        files[name] = f"blocks without {name}.safetensors"
        zero = ", ".join(f"{block}=0" for block in name.split())
        save_weighted(folder / files[name], weight_blocks(read_lora(lora)[0], zero), {}, lora.name)
    prompt = model_and_latent(checkpoint, SIZE) | {
        "analysis": use(
            "LoraFurnaceBlockAnalysis", model=["ckpt", 0], clip=["ckpt", 1], vae=["ckpt", 2], lora_name=lora.name, vector="1",
            sets=", ".join(TRIALS), ratios="0", prompt="a house", negative="blurry", width=SIZE, height=SIZE, seed=7, steps=2, cfg=5.0,
            sampler_name="euler", scheduler="normal", seeds=1, threshold=20,
        ),
        "sheet": use("PreviewImage", images=["analysis", 1]),
    }  # fmt: skip
    for name, file in files.items():
        links = {"model": ["ckpt", 0], "clip": ["ckpt", 1]}
        prompt[f"lora {name}"] = use("LoraLoader", lora_name=file, strength_model=1.0, strength_clip=1.0, **links)
        prompt |= drawn(name, "a house", [f"lora {name}", 0], [f"lora {name}", 1])
    outputs = comfy.run(prompt, timeout=1400)
    assert "lora key not loaded" not in comfy.log()
    (sheet,) = pictures(comfy, outputs, "sheet")
    found = [places(sheet, pictures(comfy, outputs, f"native {name}")[0]) for name in files]
    assert [len(cells) for cells in found] == [1] * len(files), found  # each once: they differ from each other
    cells = [cell for (cell,) in found]
    assert cells == sorted(cells), "the reference comes first, then the trials in their order"
