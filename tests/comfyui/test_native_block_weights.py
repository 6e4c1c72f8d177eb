"""Block weights in ComfyUI's own code: what its loader makes of a weighted file, and when its hooks act."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
root, comfyui = sys.argv[1:3]
sys.argv = ["comfyui", "--cpu"]
sys.path[:0] = [comfyui, root]
import comfy.options
comfy.options.enable_args_parsing()
import torch
import comfy.hooks, comfy.lora
from trainer.block_weights import weight_blocks

OUT, IN, RANK = 24, 20, 3
KEY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
def rand(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.3
FILES = {
    "lora": {"lora_up.weight": rand(OUT, RANK), "lora_down.weight": rand(RANK, IN)},
    "loha": {"hada_w1_a": rand(OUT, RANK), "hada_w1_b": rand(RANK, IN), "hada_w2_a": rand(OUT, RANK), "hada_w2_b": rand(RANK, IN)},
    "lokr": {"lokr_w1": rand(4, 5), "lokr_w2_a": rand(OUT // 4, RANK), "lokr_w2_b": rand(RANK, IN // 5)},
    "lokr whole": {"lokr_w1": rand(4, 5), "lokr_w2": rand(OUT // 4, IN // 5)},
    "full": {"diff": rand(OUT, IN)},
    "dora": {"lora_up.weight": rand(OUT, RANK), "lora_down.weight": rand(RANK, IN), "dora_scale": rand(1, IN).abs() + 1},
}
weight = rand(OUT, IN)
def change(tensors):
    found = comfy.lora.load_lora(tensors, {KEY: "w"})
    return (comfy.lora.calculate_weight([(1.0, found["w"], 1.0, None, None)], weight.clone(), "w") if found else weight) - weight
result = {}
for kind, file in FILES.items():
    tensors = {f"{KEY}.{name}": tensor for name, tensor in file.items()} | {f"{KEY}.alpha": torch.tensor(2.0)}
    full = change(tensors)
    weighted = {ratio: weight_blocks(tensors, f"M00={ratio}") for ratio in ((0, 1) if kind == "dora" else (0, 0.5, -0.7, 1))}
    errors = [float((change(lora.tensors()) - ratio * full).abs().max()) for ratio, lora in weighted.items()]
    result[kind] = [max(errors), float(full.norm()), weighted[1].lines()[0].norm]

class Model:
    class model_sampling:
        percent_to_sigma = staticmethod(lambda percent: 1 - percent)
hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
frames = comfy.hooks.HookKeyframeGroup()
for place, strength in ((0.0, 0.0), (0.25, 1.0), (0.5, 0.0)):
    frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=place, guarantee_steps=0))
hooks.set_keyframes_on_hooks(hook_kf=frames)
(frames,) = (hook.hook_keyframe for hook in hooks.hooks)
frames.reset()
frames.initialize_timesteps(Model)
result["hook"] = []
for sigma in (1.0, 0.8, 0.75, 0.6, 0.5, 0.1):
    frames.prepare_current_keyframe(torch.tensor(sigma), {"sample_sigmas": torch.tensor([1.0, 0.0])})
    result["hook"].append(frames.strength)
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def found(comfyui_path: Path) -> dict:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), str(comfyui_path)], capture_output=True, text=True, timeout=300, cwd=comfyui_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "lokr whole", "full", "dora"])
def test_the_loaded_change_is_the_ratio_times_the_whole_one(found: dict, kind: str) -> None:
    error, norm, ours = found[kind]
    assert error < 1e-6
    if kind != "dora":
        assert ours == pytest.approx(norm, rel=1e-5)


def test_a_hook_acts_only_between_its_frames(found: dict) -> None:
    assert found["hook"] == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
