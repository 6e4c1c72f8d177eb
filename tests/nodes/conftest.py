"""The pack, loaded as ComfyUI loads it, beside a fake ComfyUI."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_comfy import FakeComfy
from tiny import write_base, write_pictures

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Pack:
    """The loaded pack: `call` runs a node as ComfyUI does, on constants and other nodes' results."""

    module: ModuleType
    comfy: FakeComfy

    def node(self, name: str) -> type:
        return self.module.NODE_CLASS_MAPPINGS[f"LoraFurnace{name}"]

    def part(self, name: str) -> ModuleType:
        """A module of the pack, such as "nodes.runs"."""
        return sys.modules[f"{self.module.__name__}.{name}"]

    def call(self, name: str, **inputs: Any) -> Any:
        kind = self.node(name)
        return getattr(kind(), kind.FUNCTION)(**defaults(kind) | inputs)

    def base(self) -> Any:
        """A tiny random Stable Diffusion 1.5."""
        section = self.part("trainer.config").BaseSection
        return section(checkpoint=str(self.comfy.base / "tiny_base"))


def defaults(kind: type) -> dict[str, Any]:
    """The widgets of a node as they stand after it was added."""
    inputs = kind.INPUT_TYPES()
    found = {**inputs.get("required", {}), **inputs.get("optional", {})}
    return {name: options["default"] for name, (_, options) in found.items() if "default" in options}


@pytest.fixture
def comfy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeComfy:
    fake = FakeComfy(tmp_path)
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    write_base(tmp_path / "tiny_base")
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
