"""Where the tokenizer comes from. transformers 5 gives one without words where it finds no files, instead of an error."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny

from trainer.errors import ModelFileError
from trainer.families.text import find_clip_tokenizer
from trainer.families.tokenizer_files import CLIP_REPOSITORY, read_tokenizer


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty Hugging Face cache on a machine without a network."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def test_without_any_tokenizer_nothing_is_trained(hub, tmp_path):
    with pytest.raises(ModelFileError, match=r"no CLIP tokenizer: neither .*models.tokenizer holds vocab\.json"):
        find_clip_tokenizer(None, tmp_path / "models" / "model.safetensors", 77)


def test_one_in_the_cache_is_found(hub, tmp_path):
    repository = hub / f"models--{CLIP_REPOSITORY.replace('/', '--')}"
    tiny.write_tokenizer(repository / "snapshots" / "abc", size=700)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")

    assert find_clip_tokenizer(None, tmp_path / "model.safetensors", 77).library.eos_token_id == 699


def test_the_one_file_that_transformers_5_writes_is_enough(hub, tmp_path):
    from transformers import CLIPTokenizerFast

    source = tiny.write_tokenizer(tmp_path / "source")
    whole = CLIPTokenizerFast.from_pretrained(str(source))
    whole.save_pretrained(str(tmp_path / "saved"))
    folder = tmp_path / "model" / "tokenizer"
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "saved" / name, folder)

    ids = find_clip_tokenizer(None, source.parent / "model", 77).ids("a cat")
    assert ids == whole("a cat", add_special_tokens=False)["input_ids"] and len(ids) == 4
    assert find_clip_tokenizer(str(folder), tmp_path, 77).ids("a cat") == ids


def test_one_without_words_is_refused(tmp_path):
    folder = tiny.write_tokenizer(tmp_path / "tokenizer")
    (folder / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}', encoding="utf-8")
    with pytest.raises(ModelFileError, match="has no words"):
        read_tokenizer(folder)


def test_a_damaged_one_is_named(tmp_path):
    folder = tiny.write_tokenizer(tmp_path / "tokenizer")
    (folder / "vocab.json").write_text('{"a": ', encoding="utf-8")
    with pytest.raises(ModelFileError, match="the tokenizer in .*tokenizer cannot be read"):
        read_tokenizer(folder)


def test_a_folder_without_one_gives_none(tmp_path):
    assert read_tokenizer(tmp_path) is None
    assert read_tokenizer(tmp_path / "missing") is None
