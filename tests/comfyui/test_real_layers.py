"""Adapters of every layer of the real architectures in ComfyUI's own LoRA code: all tensors are known, patched weights are ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_keys import KEYS, ROOT, ask

FORMS = {  # rank 64 leaves every LoKr whole
    "lora": {},
    "lora tucker": {"tucker": True},
    "dylora": {},
    "loha": {},
    "loha tucker": {"tucker": True},
    "lokr": {},
    "lokr whole": {"rank": 64},
    "lokr factor 4": {"lokr_factor": 4},
    "lokr both": {"lokr_decompose_both": True},
}
# Compared beside all shapes of less than a million numbers.
WIDE = {(10240, 1280), (5120, 1280), (1280, 2048), (1280, 1280), (640, 2048), (768, 3072), (1280, 2560, 1, 1), (640, 640, 3, 3)}
# ComfyUI's names and shapes of `KEYS` are `result`. Layers of equal shape share their tensors; of each shape one weight is compared.
COMPARE = (
    f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]"
    + """
import logging, math, os, tempfile
from dataclasses import replace
from safetensors.torch import load_file, save_file
from real_size import targets_of
from trainer.adapters import ADAPTERS
from trainer.adapters.inject import AdapterSet, fresh_layers

lines = []
logging.getLogger().addHandler(type("Keep", (logging.Handler,), {"emit": lambda self, record: lines.append(record.getMessage())})())
random = torch.Generator().manual_seed(1)
targets = targets_of(argument)
first = {tuple(target.module.weight.shape): target for target in reversed(targets)}
compared = {target.key for shape, target in first.items() if math.prod(shape) < 1e6 or shape in wide}
for shape, target in first.items():
    own = torch.randn(shape, generator=random) / math.sqrt(math.prod(shape[1:])) if target.key in compared else torch.ones(1).expand(shape)
    target.module.weight = torch.nn.Parameter(own, requires_grad=False)

def compare(name, dora, rank=4, **options):
    adapter = replace(ADAPTERS[name.split()[0]], **options)
    adapters = AdapterSet(fresh_layers(adapter, [(target.key, target.module) for target in first.values()], rank, 3.0, 1, dora))
    for layer in adapters.layers:
        for tensor in layer.parts().values():
            tensor.data.normal_(std=0.2, generator=random)
        if dora:
            layer.magnitude.data.mul_(torch.empty_like(layer.magnitude).uniform_(0.5, 2, generator=random))
    saved = adapters.saved(torch.float32)
    parts = {layer.key: [part for part in saved if part.startswith(layer.key + ".")] for layer in adapters.layers}
    whole = {}
    for target in targets:
        key = first[tuple(target.module.weight.shape)].key
        whole |= {target.key + part[len(key):]: saved[part].clone() for part in parts[key]}
    with tempfile.TemporaryDirectory() as folder:
        save_file(whole, os.path.join(folder, "adapter.safetensors"))
        patches = comfy.lora.load_lora(load_file(os.path.join(folder, "adapter.safetensors")), {key: key for key in result})
    errors = {}
    for layer in adapters.layers:
        if layer.key in compared:
            weight = layer.module.weight
            patched = comfy.lora.calculate_weight([(1.0, patches[layer.key], 1.0, None, None)], weight.clone(), layer.key)
            errors[layer.key] = float((patched - weight - layer.change()).abs().max())
    worst = max(errors, key=errors.get)
    return {"patches": len(patches), "compared": len(errors), "error": errors[worst], "layer": worst}

differing = [target.key for target in targets if tuple(result[target.key]) != tuple(target.module.weight.shape)]
rows = {f"{name} dora" if dora else name: compare(name, dora, **options) for name, options in forms.items() for dora in (False, True)}
result = {"layers": len(targets), "differing": differing, "lines": lines, "rows": rows}
"""
)


@pytest.mark.parametrize(("family", "layers"), [("sd15", 350), ("sdxl", 1052)])
def test_every_kind_of_adapter_patches_real_layers_as_training_did(comfyui_path: Path, family: str, layers: int) -> None:
    answer = ask(comfyui_path, f"forms, wide = {FORMS!r}, {WIDE!r}\n{KEYS}{COMPARE}", family)
    for name, row in answer["rows"].items():
        print(f"{family} {name}: {row}")
    assert answer["layers"] == layers
    assert answer["differing"] == []
    assert [line for line in answer["lines"] if "not loaded" in line or "error" in line.lower()] == []
    assert len(answer["rows"]) == 2 * len(FORMS)
    for name, row in answer["rows"].items():
        assert row["patches"] == layers, name
        assert row["error"] < 1e-5, (name, row)
