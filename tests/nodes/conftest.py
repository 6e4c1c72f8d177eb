"""The pack, loaded as ComfyUI loads it, beside a fake ComfyUI."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_comfy import FakeComfy
from loaded_pack import BLOCK_KEYS, ROOT, Pack
from tiny import write_pictures


@pytest.fixture
def comfy(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeComfy:
    fake = FakeComfy(tmp_path)
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    shutil.copytree(base, tmp_path / "tiny_base")
    write_pictures(tmp_path / "input" / "cat")
    return fake


@pytest.fixture
def pack(comfy: FakeComfy) -> Iterator[Pack]:
    """Loaded by path under a name that is a path, with a folder name that is no identifier; so only relative imports work."""
    link = comfy.base / "custom_nodes" / "lora-furnace"
    link.parent.mkdir()
    link.symlink_to(ROOT, target_is_directory=True)
    name = str(link).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, link / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield Pack(module, comfy)
    finally:
        for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[loaded]


@pytest.fixture
def block_lora(pack: Pack) -> Path:
    """models/loras/cat.safetensors: one layer for each of `BLOCK_KEYS`, all ones."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for key in BLOCK_KEYS.values():
        tensors |= {
            f"{key}.lora_up.weight": torch.ones(3, 2),
            f"{key}.lora_down.weight": torch.ones(2, 4),
            f"{key}.alpha": torch.tensor(2.0),
        }
    path = pack.comfy.base / "models/loras/cat.safetensors"
    save_file(tensors, path, metadata={"ss_output_name": "cat"})
    return path
