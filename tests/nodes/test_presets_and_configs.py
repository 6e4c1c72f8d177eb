"""Presets laid over links, and whole configurations in files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from loaded_pack import Pack


def label(pack: Pack, name: str) -> str:
    return next(text for text in pack.node("LoadPreset").INPUT_TYPES()["required"]["preset"][0] if text.startswith(f"{name} "))


@pytest.fixture
def links(pack: Pack) -> dict[str, Any]:
    """A base among ComfyUI's checkpoints and a dataset in its input folder."""
    checkpoints = pack.comfy.base / "models" / "checkpoints"
    shutil.copytree(pack.comfy.base / "tiny_base", checkpoints / "tiny")
    base = pack.part("trainer.config").BaseSection(checkpoint=str(checkpoints / "tiny"))
    return {"base": base, "dataset": pack.call("Dataset", folder="input/cat", width=64, height=64)[0]}


def test_the_choices_are_the_presets_with_their_titles(pack: Pack) -> None:
    choices = pack.node("LoadPreset").INPUT_TYPES()["required"]["preset"][0]
    assert choices[0] == "anime_character (Anime character · 动漫角色)"
    assert [choice.split()[0] for choice in choices] == list(pack.part("trainer.config.preset").presets())


def test_a_title_may_change_but_not_the_name(pack: Pack) -> None:
    check = pack.node("LoadPreset").VALIDATE_INPUTS
    assert check(preset="style (another title)") is True
    assert "is unknown" in str(check(preset="stile (Style)"))


def test_a_preset_changes_all_links(pack: Pack, links: dict[str, Any]) -> None:
    base, dataset, lora, training, notes = pack.call("LoadPreset", **links, preset=label(pack, "anime_character"))
    assert (base.checkpoint, base.clip_skip) == (links["base"].checkpoint, 2)
    assert (dataset.folders, dataset.captions.shuffle) == (links["dataset"].folders, True)
    assert (lora.rank, training["optimizer"].lr, training["optimizer"].text_encoder_lr) == (32, 3e-4, 1e-4)
    assert training["loss"].min_snr_gamma == 5
    assert notes.startswith("Anime character\n") and "base.clip_skip = 2\n    Nearly all drawn SD 1.5 models" in notes and "✗" not in notes


def test_presets_chain_and_ones_own_values_win(pack: Pack, links: dict[str, Any]) -> None:
    given = pack.call("Training", epochs=3)[0]
    *first, _ = pack.call("LoadPreset", **links, preset=label(pack, "anime_character"), training=given)
    base, dataset, lora, training = first
    last = pack.call(
        "LoadPreset", base=base, dataset=dataset, lora=lora, training=training, preset=label(pack, "vram_8"),
        changes="method.rank=4\n\ndataset.batch_size=3", language="zh",
    )  # fmt: skip
    _, dataset, lora, training, notes = last
    assert (lora.rank, lora.alpha, dataset.batch_size) == (4, 16.0, 3)
    assert (training["optimizer"].kind, training["optimizer"].lr, training["train"].epochs) == ("adamw8bit", 3e-4, 3)
    assert notes.startswith("8 GB 显存") and "\n✗ dataset.batch_size = 2\n" in notes


def test_where_values_come_from_travels_along(pack: Pack, links: dict[str, Any]) -> None:
    """Into the configuration, from which the reasons of the presets can be shown; a loaded one keeps it."""
    *first, _ = pack.call("LoadPreset", **links, preset=label(pack, "style"))
    base, dataset, lora, training = first
    *last, _ = pack.call("LoadPreset", base=base, dataset=dataset, lora=lora, training=training, preset=label(pack, "vram_8"))
    last[3] = pack.call("LossNoise", training=last[3])[0]
    config = pack.part("nodes.links").config_of(*last)
    assert config.from_presets == ("style", "vram_8")
    effects = {preset.name: (len(held), len(replaced)) for preset, held, replaced in pack.part("trainer.reading").preset_effects(config)}
    assert set(effects) == {"style", "vram_8"} and effects["vram_8"][0] > 0
    names = dict(zip(("base", "dataset", "lora", "training"), last, strict=True))
    (text,) = pack.call("SaveConfiguration", **names, file_name="x", lora_name="cat")
    assert yaml.safe_load(text)["from_presets"] == ["style", "vram_8"]
    loaded = pack.call("LoadConfiguration", config="configs/x.yaml")
    assert loaded[3]["from_presets"] == ("style", "vram_8")


def test_a_wrong_change_is_named(pack: Pack, links: dict[str, Any]) -> None:
    error = pack.part("trainer.errors").ConfigError
    with pytest.raises(error, match=r"method\.rnak: unknown key; did you mean 'rank'"):
        pack.call("LoadPreset", **links, preset=label(pack, "style"), changes="method.rnak=4")


@pytest.mark.parametrize("format", ["yaml", "json"])
@pytest.mark.parametrize("full", [False, True])
def test_what_is_saved_is_loaded_again(pack: Pack, links: dict[str, Any], format: str, full: bool) -> None:
    lora, training = pack.call("Lora", rank=6)[0], pack.call("Training", epochs=2, sample_prompts="a cat")[0]
    (text,) = pack.call(
        "SaveConfiguration", **links, lora=lora, training=training, file_name="猫", lora_name="cat", format=format, full=full
    )
    saved = pack.comfy.base / "output" / "lora_furnace" / "configs" / f"猫.{format}"
    assert saved.read_text("utf-8") == text and ("buckets" in text) == full
    assert f"configs/猫.{format}" in pack.node("LoadConfiguration").INPUT_TYPES()["required"]["config"][0]
    *loaded, name = pack.call("LoadConfiguration", config=f"configs/猫.{format}")
    place = {"name": "cat", "dir": str(pack.comfy.base / "models" / "loras")}
    config_of = pack.part("nodes.links").config_of
    before = config_of(**links, lora=lora, training={**training, "save": training["save"].model_copy(update=place)})
    assert name == "cat" and config_of(*loaded) == before


def test_a_saved_file_is_never_replaced(pack: Pack, links: dict[str, Any]) -> None:
    folder = pack.comfy.base / "output" / "lora_furnace" / "configs"
    for name in ("a", "a", "b"):
        pack.call("SaveConfiguration", **links, file_name="x", lora_name=name)
    assert sorted(path.name for path in folder.iterdir()) == ["x.yaml", "x_2.yaml"]
    assert yaml.safe_load((folder / "x.yaml").read_text())["save"]["name"] == "a"
    with pytest.raises(ValueError, match="cannot be a file name"):
        pack.call("SaveConfiguration", **links, file_name="../x", lora_name="a")


def test_a_saved_file_that_was_deleted_or_edited_is_written_again(pack: Pack, links: dict[str, Any]) -> None:
    node, file = pack.node("SaveConfiguration"), pack.comfy.base / "output/lora_furnace/configs/mine.yaml"
    nothing = node.IS_CHANGED(file_name="mine")
    pack.call("SaveConfiguration", **links, file_name="mine")
    saved = node.IS_CHANGED(file_name="mine", base=None, format="yaml")
    file.write_text("edited")
    edited = node.IS_CHANGED(file_name="mine")
    file.unlink()
    assert len({nothing, saved, edited}) == 3 and node.IS_CHANGED(file_name="mine") == nothing


def test_a_file_in_the_input_folder_may_name_presets(pack: Pack, links: dict[str, Any]) -> None:
    values = {
        "presets": ["object"],
        "base": {"checkpoint": links["base"].checkpoint},
        "dataset": {"folders": [{"path": links["dataset"].folders[0].path}]},
    }
    (pack.comfy.base / "input" / "job.yaml").write_text(yaml.safe_dump(values))
    base, dataset, lora, training, name = pack.call("LoadConfiguration", config="input/job.yaml")
    assert training["optimizer"].text_encoder_lr == 5e-5 and dataset.captions.keep_tokens == 1 and name == "my_lora"


@pytest.mark.parametrize("name", ["input/../secret.yaml", "configs/", "elsewhere/a.yaml", "/etc/passwd", "input/none.yaml"])
def test_files_lie_below_the_roots(pack: Pack, name: str) -> None:
    (pack.comfy.base / "secret.yaml").write_text("a: b")
    with pytest.raises(ValueError, match="is not a file below"):
        pack.call("LoadConfiguration", config=name)


def test_a_link_out_of_the_root_is_refused(pack: Pack) -> None:
    (pack.comfy.base / "secret.yaml").write_text("a: b")
    (pack.comfy.base / "input" / "link.yaml").symlink_to(pack.comfy.base / "secret.yaml")
    with pytest.raises(ValueError, match="is not a file below"):
        pack.call("LoadConfiguration", config="input/link.yaml")


def test_what_a_file_names_must_lie_in_comfyuis_folders(pack: Pack) -> None:
    outside = pack.comfy.base / "tiny_base"
    values = {
        "base": {"checkpoint": str(outside)},
        "dataset": {"folders": [{"path": "/etc", "masks": "/usr"}]},
        "validate": {"folder": "/usr"},
    }
    (pack.comfy.base / "input" / "job.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(pack.part("trainer.errors").ConfigError) as caught:
        pack.call("LoadConfiguration", config="input/job.yaml")
    assert [text.split(":")[0] for text in caught.value.problems] == [
        "base.checkpoint",
        "dataset.folders.0.path",
        "dataset.folders.0.masks",
        "validate.folder",
    ]


def test_nothing_saved_yet(pack: Pack) -> None:
    (choice,) = pack.node("LoadConfiguration").INPUT_TYPES()["required"]["config"][0]
    assert pack.node("LoadConfiguration").IS_CHANGED(config=choice) == ""
    with pytest.raises(ValueError, match="there is no file yet"):
        pack.call("LoadConfiguration", config=choice)


def test_an_edited_file_is_noticed(pack: Pack) -> None:
    file: Path = pack.comfy.base / "input" / "job.yaml"
    file.write_text("a: b")
    before = pack.node("LoadConfiguration").IS_CHANGED(config="input/job.yaml")
    file.write_text("a: bb")
    assert pack.node("LoadConfiguration").IS_CHANGED(config="input/job.yaml") != before
