"""The small part of ComfyUI that the nodes touch, as modules to put into `sys.modules`."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class InterruptProcessingException(BaseException):
    pass


class FakeFrames(list):
    add = list.append


@dataclass
class FakeHooks:
    """A hook of a LoRA, with the frames that were set on it."""

    lora: dict[str, Any]
    strength_model: float
    strength_clip: float
    frames: FakeFrames = field(default_factory=FakeFrames)

    def set_keyframes_on_hooks(self, hook_kf: FakeFrames) -> None:
        self.frames = hook_kf


@dataclass
class FakeComfy:
    """Folders below `base`, what was shown, and the Cancel button."""

    base: Path
    progress: list[tuple[int, int, Any]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    unloaded: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def throw_if_cancelled(self) -> None:
        if self.cancelled.is_set():
            self.cancelled.clear()
            raise InterruptProcessingException

    def modules(self) -> dict[str, ModuleType]:
        modules = {
            "comfy": {},
            "comfy.hooks": {"create_hook_lora": FakeHooks, "HookKeyframeGroup": FakeFrames, "HookKeyframe": SimpleNamespace},
            "comfy.lora": {
                "model_lora_keys_unet": lambda model, keys: keys | {name: name for name in model.state_dict()},
                "model_lora_keys_clip": lambda clip, keys: keys | {name: (name, (0, 0, 8)) for name in clip.state_dict()},
            },
            "comfy.model_management": self._management(),
            "comfy.sample": {},
            "comfy.samplers": {"KSampler": SimpleNamespace(SAMPLERS=["euler", "ddim"], SCHEDULERS=["normal", "karras"])},
            "comfy.sd": {"__file__": str(self.base / "comfy" / "sd.py"), "load_lora_for_models": _loaded},
            "comfy.utils": {"ProgressBar": self._progress_bar(), "load_torch_file": _load},
            "folder_paths": self._folder_paths(),
            "nodes": {},
            "server": {"PromptServer": SimpleNamespace(instance=SimpleNamespace(client_id="me", send_progress_text=self._text))},
        }
        made = {name: ModuleType(name) for name in modules}
        for name, contents in modules.items():
            vars(made[name]).update(contents)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(made[parent], child, made[name])
        return made

    def _management(self) -> dict[str, Any]:
        def unload() -> None:
            self.unloaded += 1

        return {
            "InterruptProcessingException": InterruptProcessingException,
            "processing_interrupted": self.cancelled.is_set,
            "interrupt_current_processing": lambda value=True: self.cancelled.set() if value else self.cancelled.clear(),
            "throw_exception_if_processing_interrupted": self.throw_if_cancelled,
            "unload_all_models": unload,
            "soft_empty_cache": lambda: None,
        }

    def _progress_bar(self) -> type:
        host = self

        class ProgressBar:
            def __init__(self, total: int, node_id: str | None = None):
                self.total = total

            def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
                host.throw_if_cancelled()  # ComfyUI's hook does so too
                host.progress.append((value, total or self.total, preview))

        return ProgressBar

    def _text(self, text: str, node_id: str, sid: str | None = None) -> None:
        self.texts.append((node_id, text))

    def _folder_paths(self) -> dict[str, Any]:
        folders = {kind: self.base / "models" / kind for kind in ("checkpoints", "diffusers", "loras", "vae")} | {
            "datasets": self.base / "datasets"
        }
        others = {kind: self.base / kind for kind in ("input", "output", "temp", "user")}
        for folder in (*folders.values(), *others.values()):
            folder.mkdir(parents=True, exist_ok=True)

        def full_path(kind: str, name: str) -> str | None:
            path = folders[kind] / os.path.relpath(f"/{name}", "/")
            return str(path) if os.path.isfile(path) else None  # noqa: PTH113 - ComfyUI does so, and it refuses no name

        def annotated(name: str) -> tuple[str, str | None]:
            for kind in ("output", "input", "temp"):
                if name.endswith(f"[{kind}]"):
                    return name[: -len(kind) - 3], str(others[kind])
            return name, None

        return {
            "annotated_filepath": annotated,
            "folder_names_and_paths": folders,
            "get_folder_paths": lambda kind: [str(folders[kind])],
            "get_filename_list": lambda kind: sorted(
                str(path.relative_to(folders[kind])) for path in folders[kind].rglob("*") if path.is_file()
            ),
            "get_full_path": full_path,
            **{f"get_{kind}_directory": (lambda folder=folder: str(folder)) for kind, folder in others.items()},
        }


def _load(path: str, safe_load: bool = False) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


def _loaded(model: Any, clip: Any, lora: dict[str, Any], strength_model: float, strength_clip: float) -> tuple[Any, Any]:
    """What the native loader was asked for, in place of patched models."""
    return (model, lora, strength_model), (clip, lora, strength_clip)
