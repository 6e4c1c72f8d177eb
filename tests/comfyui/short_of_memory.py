"""A custom node file for ComfyUI: trainings that run out of memory on purpose, and what is left of them afterwards."""

from __future__ import annotations

import gc
import importlib
import json
import sys
import weakref
from typing import Any

import torch

networks: list[weakref.ref[Any]] = []  # those that were trained
undo: list[Any] = []


def trainer_module(name: str) -> Any:
    """A module of the pack's trainer, under whatever name ComfyUI gave the pack."""
    root = next(name for name, module in list(sys.modules.items()) if name.endswith(".trainer") and "TrainConfig" in vars(module))
    return importlib.import_module(f"{root}.{name}")


class ShortOfMemory:
    """Passes training settings on; from a number of steps on, no forward pass fits, however it is made smaller."""

    RETURN_TYPES = ("LF_TRAINING",)
    FUNCTION = "execute"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"training": ("LF_TRAINING",), "steps": ("INT", {"default": 1})}}

    def execute(self, training: Any, steps: int) -> tuple[Any]:
        loop = trainer_module("loop")
        plain, done = loop.batch_loss, []

        def batch_loss(family: Any, model: Any, *rest: Any) -> Any:
            losses = plain(family, model, *rest)
            networks.append(weakref.ref(model.unet))
            done.append(1)
            if len(done) > steps:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")  # its frames hold the activations
            return losses

        loop.batch_loss = batch_loss
        undo.append(lambda: setattr(loop, "batch_loss", plain))
        return (training,)


class WhatIsLeft:
    """Lets trainings run again, and counts what of the failed ones is still in memory."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "execute"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def execute(self) -> dict[str, Any]:
        import comfy.model_management

        while undo:
            undo.pop()()
        gc.collect()
        kinds = (trainer_module("loop").Job, trainer_module("adapters.inject").AdapterLayer, trainer_module("families").Model)
        left = {
            "passes": len(networks),
            "networks": len({id(found) for network in networks if (found := network()) is not None}),
            "objects": sorted({type(item).__name__ for item in gc.get_objects() if isinstance(item, kinds)}),
            "models of ComfyUI": len(comfy.model_management.current_loaded_models),
        }
        return {"ui": {"left": [json.dumps(left)]}}


NODE_CLASS_MAPPINGS = {"ShortOfMemory": ShortOfMemory, "WhatIsLeft": WhatIsLeft}
