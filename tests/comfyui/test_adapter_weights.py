"""ComfyUI's own LoRA code makes of our files the weights that training had."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainer.adapters import ADAPTERS
from trainer.adapters.inject import AdapterSet, fresh_layers

LAYERS = {
    "linear": lambda: nn.Linear(48, 40),
    "point": lambda: nn.Conv2d(48, 40, 1),
    "conv": lambda: nn.Conv2d(48, 40, 3, padding=1),
    "stride": lambda: nn.Conv2d(48, 40, 3, stride=2, padding=1),
}
FORMS = {
    **ADAPTERS,
    **{f"{name} tucker": replace(ADAPTERS[name], tucker=True) for name in ("lora", "loha")},
    "lokr factor 4": replace(ADAPTERS["lokr"], lokr_factor=4),
    "lokr both": replace(ADAPTERS["lokr"], lokr_decompose_both=True),
}
STRENGTHS = (1.0, 0.5)
# Run with ComfyUI's folder as the current one; its arguments are read when comfy is imported.
PROGRAM = """
import sys
files = sys.argv[1:]
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, ".")
import comfy.options
comfy.options.enable_args_parsing()
import comfy.lora
from safetensors.torch import load_file, save_file
for path in files:
    weights = load_file(path + ".base")
    patches = comfy.lora.load_lora(load_file(path), {key: key for key in weights})
    assert set(patches) == set(weights)
    results = {}
    for key, weight in weights.items():
        for strength in (1.0, 0.5):
            patch = (strength, patches[key], 1.0, None, None)
            results[f"{key} {strength}"] = comfy.lora.calculate_weight([patch], weight.clone(), key).contiguous()
    save_file(results, path + ".patched")
"""


def trained(form: str, dora: bool, rank: int) -> AdapterSet:
    """Every kind of layer with tensors that are all random."""
    torch.manual_seed(0)
    targets = [(name, make().requires_grad_(False)) for name, make in LAYERS.items()]
    adapters = AdapterSet(fresh_layers(FORMS[form], targets, rank, 3.0, 1, dora))
    generator = torch.Generator().manual_seed(2)
    for layer in adapters.layers:
        for tensor in layer.parts().values():
            tensor.data.normal_(std=0.2, generator=generator)
        if layer.magnitude is not None:
            layer.magnitude.data.mul_(torch.empty_like(layer.magnitude).uniform_(0.5, 2, generator=generator))
    return adapters


@pytest.mark.timeout(600)
def test_patched_weights_equal_ours(comfyui_path: Path, tmp_path: Path) -> None:
    cases = {}
    for form in FORMS:
        for dora in (False, True):
            for rank in (2, 16):  # 16 leaves LoKr's factors whole
                path = tmp_path / f"{form} {dora} {rank}.safetensors".replace(" ", "_")
                adapters = cases[path] = trained(form, dora, rank)
                save_file(adapters.saved(torch.float32), path)
                save_file({layer.key: layer.module.weight.contiguous() for layer in adapters.layers}, f"{path}.base")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, cases)], cwd=comfyui_path, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "lora key not loaded" not in done.stderr
    differing = []
    for path, adapters in cases.items():
        patched = load_file(f"{path}.patched")
        for layer in adapters.layers:
            for strength in STRENGTHS:
                layer.strength = strength
                error = float((patched[f"{layer.key} {strength}"] - (layer.module.weight + layer.change())).abs().max())
                if error > 1e-5:
                    differing.append(f"{path.stem} {layer.key} at {strength}: {error:.2g}")
    assert not differing, "\n".join([*differing, done.stderr[-2000:]])
