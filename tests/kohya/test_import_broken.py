"""Files and prompts that cannot be read: a sentence, never a traceback."""

from __future__ import annotations

import json

import pytest

from trainer.errors import ConfigError
from trainer.kohya import convert, read_files
from trainer.kohya.names import FOLDER_ROWS, ROWS

BASE = {"pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "train"}


def saved(tmp_path, **values):
    """A file of the window."""
    path = tmp_path / "saved.json"
    path.write_text(json.dumps({"LoRA_type": "Standard", **BASE, **values}))
    return convert(read_files([path]))


@pytest.mark.parametrize("prompt", ["a heron in the reeds, " * 20, "~heron in the reeds", "a" * 999, "a\0b"])
def test_a_prompt_is_not_taken_for_a_file(tmp_path, prompt):
    assert saved(tmp_path, sample_prompts=prompt).get("sample.prompts") == [{"prompt": prompt.strip()}]


@pytest.mark.parametrize("name", ["a" * 300, "~nobody_of_this_name"])
def test_a_file_that_cannot_be_is_not_found(tmp_path, name):
    path = tmp_path / "a.toml"
    path.write_text(f'sample_prompts = "{name}"\ndataset_config = "{name}"')
    found = convert(read_files([path]))
    assert found.different == [f"dataset_config: {name} was not found; give it as a second file"]
    assert found.lost == [f"sample_prompts = {name!r} was not found; put the prompts into sample.prompts"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("prompts.txt", "葦の中のサギ".encode("cp932"), "codec can't decode"),
        ("prompts.json", b'[{"prompt": "a heron"', "delimiter"),
        ("prompts.json", b'{"prompt": "a heron"}', "should hold a list of prompts"),
        ("prompts.json", b"[1, 2]", "should hold a list of prompts"),
    ],
)
def test_prompts_that_cannot_be_read_are_lost(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    found = saved(tmp_path, sample_prompts=name)
    (lost,) = found.lost
    assert lost.startswith(f"sample_prompts = {name!r} cannot be read: ") and words in lost
    assert found.get("sample") is None


def test_a_value_of_a_prompt_that_is_none_is_lost(tmp_path):
    (tmp_path / "prompts.json").write_text('[{"prompt": "a heron", "width": null, "seed": [1]}]')
    found = saved(tmp_path, sample_prompts="prompts.json")
    assert found.get("sample.prompts") == [{"prompt": "a heron"}]
    assert found.lost == [f"sample_prompts: --{flag} of 'a heron' is not there" for flag in ("w None", "d [1]")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[datasets]]\n[datasets.subsets]\nimage_dir = 'a'", "should be a list of tables, written [[datasets.subsets]]"),
        ("[[datasets]]\nsubsets = 'a'", "should be a list of tables, written [[datasets.subsets]]"),
        ("[[datasets]]\nsubsets = [1]", "should be a list of tables, written [[datasets.subsets]]"),
        ("general = 1\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'", "`general` should be a table, written [general]"),
    ],
)
def test_a_dataset_description_of_another_shape_is_refused(tmp_path, text, words):
    path = tmp_path / "dataset.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_files([path])
    assert words in str(caught.value) and str(path) in str(caught.value)


NONSENSE = ("junk", [], {}, None, -1, "1,2", True, "", 1.5, [1, "x"], {"a": 1})


@pytest.mark.parametrize("kind", ["window", "script"])
@pytest.mark.parametrize(
    "name", sorted({*ROWS, *FOLDER_ROWS, "save_last_n_epochs", "save_last_n_steps", "base_weights_multiplier", "network_args"})
)
def test_nonsense_is_named_and_raises_nothing(tmp_path, name, kind):
    path = tmp_path / "a.json"
    rest = {
        **BASE,
        "base_weights": ["a"],
        "save_every_n_epochs": 1,
        "save_every_n_steps": 2,
        "enable_bucket": True,
        "sample_prompts": "a cat",
    }
    rest |= {"LoRA_type": "LyCORIS/LoKr"} if kind == "window" else {"network_module": "networks.lora"}
    for value in NONSENSE:
        path.write_text(json.dumps({**rest, name: value}))
        found = convert(read_files([path]))
        if value == "junk":
            assert name in " ".join([*found.taken, *found.unknown, *found.lost, *found.different, *found.needless])
