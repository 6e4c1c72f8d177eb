"""CLIP text: finding the tokenizer, turning texts into chunks of token ids, and running an encoder over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelFileError
from .base import Reading, TextPart
from .emphasis import weigh
from .tokenizer_files import fetch_tokenizer, read_tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn

_LONG = 8  # a piece of so many tokens may be cut by the end of a chunk; a shorter one moves to the next chunk (ComfyUI)

Chunk = list[tuple[int, float]]  # token ids and their weights, without marks


@dataclass(frozen=True)
class ClipTokenizer:
    """Token ids for CLIP encoders with `positions` places per chunk, begin and end marks included."""

    library: Any  # transformers.CLIPTokenizer
    positions: int
    reading: Reading = Reading()

    @property
    def limit(self) -> int:
        """The most tokens of a caption that are read: 75 per chunk for Stable Diffusion."""
        return (self.positions - 2) * (self.reading.chunks or 1)

    def ids(self, text: str) -> list[int]:
        """All token ids of a text, without marks, not cut."""
        return [token for piece in self._pieces(text) for token, _ in piece]

    def chunks(self, text: str) -> list[Chunk]:
        """The text in chunks of at most `positions` - 2 tokens, cut where the reading allows no more chunks; at least one."""
        room = self.positions - 2
        result: list[Chunk] = [[]]
        for piece in self._pieces(text):
            while piece:
                free = room - len(result[-1])
                if len(piece) > free:
                    if len(piece) >= _LONG:
                        result[-1] += piece[:free]
                        piece = piece[free:]
                    result.append([])
                else:
                    result[-1] += piece
                    piece = []
        return result[: self.reading.chunks]

    def row(self, chunk: Chunk, pad: int | None) -> list[int]:
        """The `positions` ids of a chunk: begin mark, tokens, end mark, then `pad` (None: end marks) up to the end."""
        begin, end = self.library.bos_token_id, self.library.eos_token_id
        ids = [begin, *(token for token, _ in chunk), end]
        return ids + [end if pad is None else pad] * (self.positions - len(ids))

    def _pieces(self, text: str) -> list[Chunk]:
        weighted = weigh(text, self.reading.brackets) if self.reading.weighted else [(text, 1.0)]
        return [[(token, weight) for token in self._tokens(piece)] for piece, weight in weighted]

    def _tokens(self, text: str) -> list[int]:
        return list(self.library(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])


def encode_texts(
    encoder: nn.Module, part: TextPart, tokenizer: ClipTokenizer, texts: Sequence[Sequence[Chunk]], clip_skip: int
) -> list[tuple[Tensor, Tensor | None]]:
    """For each text, given as its chunks: hidden states (1, chunks · positions, width), and the pooled vector (1, width) if there is one.

    A token's weight moves its state away from that of the empty text, or towards it: ComfyUI's way, so that previews agree.
    """
    import torch

    weighted = any(weight != 1 for chunks in texts for chunk in chunks for _, weight in chunk)
    # As many rows for each text, so that what adapters draw for a sample meets its rows; the last is the empty text to weigh against.
    count = max(map(len, texts)) + weighted
    rows = [chunk for chunks in texts for chunk in (*chunks, *[[]] * (count - len(chunks)))]
    ids = torch.tensor([tokenizer.row(chunk, part.pad) for chunk in rows], dtype=torch.long)
    device = next(encoder.parameters()).device
    ends = torch.tensor([len(chunk) + 1 for chunk in rows], device=device)
    hidden, pooled = hidden_states(encoder, part, ids.to(device), ends, clip_skip)
    hidden = hidden.unflatten(0, (len(texts), count))  # (B, rows, positions, width)
    if weighted:
        padded = [[1.0, *(weight for _, weight in chunk)] for chunk in rows]
        weights = torch.tensor([row + [1.0] * (tokenizer.positions - len(row)) for row in padded], device=device)
        weights = weights.view(len(texts), count, -1, 1)
        states, empty = hidden.float(), hidden[:, -1:].float()
        hidden = torch.where(weights == 1, states, (states - empty) * weights + empty).to(hidden.dtype)
    return [
        (hidden[number, : len(chunks)].flatten(0, 1)[None], pooled[number * count : number * count + 1] if pooled is not None else None)
        for number, chunks in enumerate(texts)
    ]


def hidden_states(encoder: Any, part: TextPart, ids: Tensor, ends: Tensor, clip_skip: int) -> tuple[Tensor, Tensor | None]:
    """The output (B, positions, width) of the `clip_skip`-th used layer from the end for ids (B, positions), and the pooled vector.

    The pooled vector (B, width) is the projected state of the end mark at place `ends` (B,), behind all layers.
    """
    core, layer = clip_core(encoder), clip_skip + part.skipped
    if layer == 1 and part.normed and not part.pooled:
        return core(input_ids=ids).last_hidden_state, None
    output = core(input_ids=ids, output_hidden_states=True)
    states = output.hidden_states[-layer]
    states = core.final_layer_norm(states) if part.normed else states
    if not part.pooled:
        return states, None
    rows = ends.new_tensor(range(len(ends)))
    return states, encoder.text_projection(output.last_hidden_state[rows, ends])


def find_clip_tokenizer(given: str | None, checkpoint: Path, positions: int) -> ClipTokenizer:
    """The tokenizer named in the settings, beside the model, in the Hugging Face cache, or downloaded; in that order."""
    beside = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "tokenizer"
    library = read_tokenizer(Path(given) if given else beside)
    if library is None and given:
        raise ModelFileError(f"base.tokenizer {given}: neither vocab.json with merges.txt nor tokenizer.json is there")
    return ClipTokenizer(library or fetch_tokenizer(beside), positions)


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
