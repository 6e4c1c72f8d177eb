"""A CLIP model from a local file or folder, to compare pictures with pictures and with texts. Nothing is ever downloaded.

Radford et al. 2021 (arXiv 2103.00020). A folder in the form of transformers holds both parts; a single file of ComfyUI's
clip_vision folder holds the part that sees pictures only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelFileError
from ..families.tokenizer_files import read_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of the pictures CLIP was trained on
_BATCH = 16
# Width of the picture part -> attention heads; a single file does not say it. Widths of OpenAI's and LAION's models.
_HEADS = {768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}


class Clip:
    """Pictures and texts as unit vectors in one space."""

    def __init__(self, model: Any, side: int, tokenizer: Any = None):
        self._model, self._side, self._tokenizer = model.eval(), side, tokenizer

    def of_pictures(self, pictures: Sequence[Image]) -> np.ndarray:
        import torch

        parts = []
        for start in range(0, len(pictures), _BATCH):
            pixels = torch.stack([_pixels(picture, self._side) for picture in pictures[start : start + _BATCH]])
            with torch.no_grad():
                parts.append(self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output))
        return _unit(torch.cat(parts))

    def of_text(self, text: str) -> np.ndarray | None:
        import torch

        if self._tokenizer is None:
            return None
        places = self._model.config.text_config.max_position_embeddings
        ids = self._tokenizer(text, truncation=True, max_length=places, return_tensors="pt")
        with torch.no_grad():
            return _unit(self._model.text_projection(self._model.text_model(**ids).pooler_output))[0]


def load_clip(path: Path) -> Clip:
    """ModelFileError where there is no CLIP model."""
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    raise ModelFileError(f"clip: {path} is neither a file nor a folder; give a clip_vision file, or a folder with config.json")


def _from_folder(path: Path) -> Clip:
    from transformers import CLIPModel

    try:
        model = CLIPModel.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"clip: {path} holds no CLIP model in the form of transformers: {error}") from None
    tokenizer = read_tokenizer(path)
    if tokenizer is None:
        raise ModelFileError(f"clip: {path} holds no tokenizer; put vocab.json and merges.txt, or tokenizer.json, there")
    return Clip(model, _side(model.config.vision_config), tokenizer)


def _from_file(path: Path) -> Clip:
    """The part that sees pictures, its shape read from the tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        config = CLIPVisionConfig(**_shape(tensors))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelFileError(f"clip: {path} is no clip_vision file in safetensors form: {error}") from None
    model = CLIPVisionModelWithProjection(config)
    wanted = {name: tensors[name] for name in model.state_dict() if name in tensors}
    missing = [name for name in model.state_dict() if name not in wanted and "position_ids" not in name]
    if missing:
        raise ModelFileError(f"clip: {path} lacks {len(missing)} tensors of a CLIP model, for example {missing[0]}")
    model.load_state_dict(wanted, strict=False)
    return Clip(model, _side(config))


def _side(config: Any) -> int:
    """Side in pixels of the pictures that a vision tower takes."""
    return int(config.image_size)


def _shape(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]  # (width, 3, patch, patch)
    places = tensors["vision_model.embeddings.position_embedding.weight"]  # (1 + patches, width)
    width, patch = patches.shape[0], patches.shape[2]
    layers = {int(name.split(".")[3]) for name in tensors if name.startswith("vision_model.encoder.layers.")}
    # OpenAI's models use the quick form of GELU; all of them project to 512 or 768 numbers.
    projection = tensors["visual_projection.weight"].shape[0]
    return {
        "hidden_size": width,
        "intermediate_size": tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": _HEADS.get(width, max(1, width // 64)),
        "patch_size": patch,
        "image_size": patch * round((places.shape[0] - 1) ** 0.5),
        "projection_dim": projection,
        "hidden_act": "quick_gelu" if width < 1280 else "gelu",
    }


def _pixels(picture: Image, side: int) -> Tensor:
    """(3, side, side): cut in the middle, scaled and normalised as in training."""
    import torch
    from PIL import Image as Images
    from PIL import ImageOps

    fitted = ImageOps.fit(picture.convert("RGB"), (side, side), Images.Resampling.BICUBIC)
    array = (np.asarray(fitted, dtype=np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(SPREAD, np.float32)
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def _unit(vectors: Tensor) -> np.ndarray:
    return (vectors / vectors.norm(dim=-1, keepdim=True)).float().cpu().numpy()
