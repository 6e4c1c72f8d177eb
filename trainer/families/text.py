"""CLIP text: finding the tokenizer, turning captions into token ids, and running the encoder up to a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelFileError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

CLIP_REPOSITORY = "openai/clip-vit-large-patch14"


@dataclass(frozen=True)
class ClipTokenizer:
    """Token ids of captions for a CLIP encoder with `positions` places, begin and end marks included."""

    library: Any  # transformers.CLIPTokenizer
    positions: int

    @property
    def limit(self) -> int:
        """The most tokens that a caption can have; 75 for Stable Diffusion."""
        return self.positions - 2

    def ids(self, caption: str) -> list[int]:
        """All token ids of a caption, without marks, not cut."""
        return list(self.library(caption, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def batch(self, captions: Sequence[str]) -> Tensor:
        """Ids (B, positions): begin mark, at most `limit` tokens, then end marks up to the end, as Stable Diffusion pads."""
        import torch

        begin, end = self.library.bos_token_id, self.library.eos_token_id
        rows = []
        for caption in captions:
            ids = self.ids(caption)[: self.limit]
            rows.append([begin, *ids, *[end] * (self.positions - 1 - len(ids))])
        return torch.tensor(rows, dtype=torch.long)


def find_clip_tokenizer(given: str | None, checkpoint: Path, positions: int) -> ClipTokenizer:
    """The tokenizer named in the settings, beside the model, in the Hugging Face cache, or downloaded; in that order."""
    beside = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "tokenizer"
    folders = [Path(given)] if given else [beside]
    for folder in folders:
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return ClipTokenizer(_load(str(folder)), positions)
    if given:
        raise ModelFileError(f"base.tokenizer {given}: vocab.json and merges.txt are not both there")
    errors = []
    for local_only in (True, False):
        try:
            return ClipTokenizer(_load(CLIP_REPOSITORY, local_files_only=local_only), positions)
        except (OSError, ValueError) as error:
            errors.append(first_line(error))
    raise ModelFileError(
        f"no CLIP tokenizer: neither {beside} holds vocab.json and merges.txt, nor does the Hugging Face cache hold "
        f"{CLIP_REPOSITORY}, and it could not be downloaded ({errors[-1]}). Put the two files there or set base.tokenizer "
        "to a folder that has them; ComfyUI has a copy in comfy/sd1_tokenizer"
    )


def _load(source: str, **options: Any) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(source, **options)


def clip_hidden_states(encoder: nn.Module, ids: Tensor, clip_skip: int) -> Tensor:
    """The output (B, positions, width) of the `clip_skip`-th layer from the end, through the final layer norm."""
    if clip_skip == 1:
        return encoder(input_ids=ids).last_hidden_state
    hidden = encoder(input_ids=ids, output_hidden_states=True).hidden_states
    return clip_core(encoder).final_layer_norm(hidden[-clip_skip])


def clip_core(encoder: Any) -> Any:
    """The module that owns `encoder.layers`: transformers 4 wraps it as `text_model`, transformers 5 does not."""
    return getattr(encoder, "text_model", encoder)


def match_clip_names(names: Sequence[str], encoder: nn.Module) -> dict[str, str]:
    """File names of CLIP tensors to this library version's names, with or without the prefix `text_model.`."""
    own = set(encoder.state_dict())
    result = {}
    for name in names:
        bare = name.removeprefix("text_model.")
        match = next((candidate for candidate in (bare, "text_model." + bare) if candidate in own), None)
        if match:
            result[name] = match
    return result
