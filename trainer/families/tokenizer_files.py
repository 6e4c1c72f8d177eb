"""Reading CLIP's tokenizer from a folder, or from the Hugging Face cache and its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelFileError, first_line

CLIP_REPOSITORY = "openai/clip-vit-large-patch14"
_FILES = ("vocab.json", "merges.txt")


def read_tokenizer(folder: Path) -> Any | None:
    """transformers' tokenizer of a folder, or None where it holds none; ModelFileError where it cannot be read."""
    if not folder.is_dir():
        return None
    import transformers

    if all((folder / name).is_file() for name in _FILES):
        kind: Any = transformers.CLIPTokenizer
    elif (folder / "tokenizer.json").is_file():  # all that transformers 5 writes; of version 4 the fast one alone reads it
        kind = getattr(transformers, "CLIPTokenizerFast", transformers.CLIPTokenizer)
    else:
        return None
    try:
        tokenizer = kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ModelFileError(f"the tokenizer in {folder} cannot be read: {first_line(error)}") from None
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
        raise ModelFileError(f"the tokenizer in {folder} has no words; every caption would mean the same")
    return tokenizer


def fetch_tokenizer(beside: Path) -> Any:
    """CLIP's tokenizer from the Hugging Face cache, or downloaded into it. ModelFileError names the folder `beside` as the remedy.

    The files are asked for by name: transformers 5 gives a tokenizer without words where it finds none.
    """
    from huggingface_hub import hf_hub_download

    reason = ""
    for local_only in (True, False):
        try:
            files = [Path(hf_hub_download(CLIP_REPOSITORY, name, local_files_only=local_only)) for name in _FILES]
            return read_tokenizer(files[0].parent)
        except (OSError, ValueError) as error:
            reason = first_line(error)
    raise ModelFileError(
        f"no CLIP tokenizer: neither {beside} holds vocab.json and merges.txt, nor does the Hugging Face cache hold "
        f"{CLIP_REPOSITORY}, and it could not be downloaded ({reason}). Put the two files there or set base.tokenizer "
        "to a folder that has them; ComfyUI has a copy in comfy/sd1_tokenizer"
    )
