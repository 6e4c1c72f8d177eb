"""What can be chosen as a base: files of the checkpoints folders, and diffusers folders."""

from __future__ import annotations

import shutil

import pytest
from loaded_pack import Pack


def test_files_and_diffusers_folders_are_offered(pack: Pack) -> None:
    models = pack.comfy.base / "models"
    (models / "checkpoints" / "a.safetensors").write_bytes(b"x")
    shutil.copytree(pack.comfy.base / "tiny_base", models / "diffusers" / "mine" / "tiny")
    (models / "diffusers" / "no model").mkdir()
    node = pack.node("BaseModel")
    assert node.INPUT_TYPES()["required"]["checkpoint"][0] == ["a.safetensors", "diffusers/mine/tiny"]
    section = pack.call("BaseModel", checkpoint="diffusers/mine/tiny")[0]
    assert (section.checkpoint, section.tokenizer) == (str(models / "diffusers/mine/tiny"), None)
    assert pack.call("BaseModel", checkpoint="a.safetensors")[0].tokenizer.endswith("sd1_tokenizer")
    before = node.IS_CHANGED(checkpoint="diffusers/mine/tiny")
    (models / "diffusers/mine/tiny/unet/config.json").write_text("{}")
    assert node.IS_CHANGED(checkpoint="diffusers/mine/tiny") != before
    with pytest.raises(FileNotFoundError, match="diffusers/../tiny_base"):
        pack.call("BaseModel", checkpoint="diffusers/../tiny_base")
