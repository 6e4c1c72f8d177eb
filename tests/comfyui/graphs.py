"""Parts of prompts in ComfyUI's API form, and the pictures that their nodes showed."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import Comfy, Json

SIZE = 64


def use(kind: str, **inputs: Any) -> Json:
    return {"class_type": kind, "inputs": inputs}


def drawn(name: str, prompt: str, model: list[Any], clip: list[Any]) -> Json:
    """KSampler → VAE Decode → node "native NAME", from the nodes "ckpt" and "latent"."""
    return {
        f"positive {name}": use("CLIPTextEncode", clip=clip, text=prompt),
        f"negative {name}": use("CLIPTextEncode", clip=clip, text="blurry"),
        f"sampler {name}": use(
            "KSampler",
            model=model,
            positive=[f"positive {name}", 0],
            negative=[f"negative {name}", 0],
            latent_image=["latent", 0],
            seed=7,
            steps=2,
            cfg=5.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        f"decode {name}": use("VAEDecode", samples=[f"sampler {name}", 0], vae=["ckpt", 2]),
        f"native {name}": use("PreviewImage", images=[f"decode {name}", 0]),
    }


def model_and_latent(checkpoint: str, size: int = SIZE) -> Json:
    """The nodes "ckpt" and "latent"."""
    return {
        "ckpt": use("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "latent": use("EmptyLatentImage", width=size, height=size, batch_size=1),
    }


def pictures(comfy: Comfy, outputs: Json, node: str) -> list[np.ndarray]:
    return [np.asarray(comfy.view(image).convert("RGB")) for image in outputs[node]["images"]]
