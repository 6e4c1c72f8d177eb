"""The pack, loaded as ComfyUI loads it, beside a fake ComfyUI."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_comfy import FakeComfy
from loaded_pack import BLOCK_KEYS, ROOT, Pack
from tiny import write_pictures


@contextmanager
def loaded(base: Path, folder: Path) -> Iterator[Pack]:
    """The pack beside a fake ComfyUI in `folder`, under a name that is a path, with a folder name that is no identifier.

    So only relative imports work.
    """
    fake = FakeComfy(folder)
    shutil.copytree(base, folder / "tiny_base")
    write_pictures(folder / "input" / "cat")
    link = folder / "custom_nodes" / "lora-furnace"
    link.parent.mkdir()
    link.symlink_to(ROOT, target_is_directory=True)
    name = str(link).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, link / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for host_name, host_module in fake.modules().items():
            patch.setitem(sys.modules, host_name, host_module)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            yield Pack(module, fake)
        finally:
            for key in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
                del sys.modules[key]


@pytest.fixture
def pack(base: Path, tmp_path: Path) -> Iterator[Pack]:
    with loaded(base, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shown_pack(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pack]:
    """The same for tests that only look at it."""
    with loaded(base, tmp_path_factory.mktemp("shown")) as found:
        yield found


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
