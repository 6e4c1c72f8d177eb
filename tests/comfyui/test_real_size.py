"""LoRAs of real-size checkpoints, as `bench` leaves them, in ComfyUI's own loader.

Set BENCH_FOLDERS to folders that `python -m trainer bench --family NAME --out FOLDER` has filled (joined as in PATH), and COMFYUI_PATH.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_keys import ask

FOLDERS = [Path(folder) for folder in os.environ.get("BENCH_FOLDERS", "").split(os.pathsep) if folder]
LOAD = """
import logging
from comfy import sd, utils
lines = []
logging.getLogger().addHandler(type("Keep", (logging.Handler,), {"emit": lambda self, record: lines.append(record.getMessage())})())
model, clip, *_ = sd.load_checkpoint_guess_config(argument["checkpoint"], output_vae=False, output_clip=True)
tensors = utils.load_torch_file(argument["lora"])
model, clip = sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
result = {
    "type": type(model.model).__name__,
    "modules": len({name.split(".")[0] for name in tensors}),
    "patched": len(model.patches) + len(clip.patcher.patches),
    "unloaded": [line for line in lines if "not loaded" in line.lower()],
}
"""


@pytest.mark.parametrize("folder", FOLDERS or [pytest.param(None, marks=pytest.mark.skip(reason="BENCH_FOLDERS is not set"))])
def test_every_tensor_of_a_trained_file_is_loaded(comfyui_path: Path, folder: Path) -> None:
    checkpoint = next(folder.glob("*_random.safetensors"))
    lora = max(folder.glob("out/bench_*.safetensors"), key=lambda path: path.stat().st_mtime)
    answer = ask(comfyui_path, LOAD, {"checkpoint": str(checkpoint), "lora": str(lora)})
    print(folder, answer)
    assert answer["unloaded"] == []
    assert answer["patched"] == answer["modules"] > 0
