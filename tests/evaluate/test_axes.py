"""How axes are written, and what they change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.errors import ConfigError, ModelFileError
from trainer.evaluate.axes import AXES, Names, lora_axis, make_axis, parse_numbers, parse_uses
from trainer.evaluate.cells import Cell, LoraUse
from trainer.evaluate.lora_files import find_loras, training_order
from trainer.sample import Request

REQUEST = Request("a red cat", "red blur", 1, (64, 64), 20, 7.0, "euler", "normal")
NAMES = Names(samplers=["euler", "heun"], schedulers=["normal", "karras"])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"cat-{number:06d}.safetensors" for number in (2, 10)] + [tmp_path / "cat.safetensors"]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1-1.2/0.1", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]),
        ("0, 0.5;1 1", [0, 0.5, 1]),
        ("-1-1/0.5", [-1, -0.5, 0, 0.5, 1]),
        ("0.2-1/0.5", [0.2, 0.7]),
        (".8", [0.8]),
    ],
)
def test_numbers(text, values):
    assert list(parse_numbers(text)) == values


@pytest.mark.parametrize("text", ["", "much", "1-0/0.1", "0-1/0", "0-1/0.0001", "1-2"])
def test_wrong_numbers(text):
    with pytest.raises(ConfigError, match="strengths: "):
        parse_numbers(text)


def test_large_seeds_stay_exact():
    assert make_axis("seed", "18446744073709551615, 3-5/1", NAMES).values == (2**64 - 1, 3, 4, 5)
    with pytest.raises(ConfigError, match=r"seed: 1\.5 is not a whole number"):
        make_axis("seed", "1.5", NAMES)


def test_every_kind_changes_its_own_part(files):
    cell = Cell(REQUEST, (LoraUse(files[0]), LoraUse(files[1], 0.3)))
    texts = {
        "lora": str(files[2]), "strength": "0.5", "strength_clip": "0.25", "blocks": "INS", "checkpoint": "other.ckpt",
        "prompt": "red, blue", "seed": "9", "cfg": "3.5", "steps": "7", "sampler": "heun", "scheduler": "karras",
    }  # fmt: skip
    assert set(texts) == set(AXES)
    changed = {kind: (axis := make_axis(kind, text, NAMES)).put(cell, len(axis.values) - 1) for kind, text in texts.items()}
    assert changed["lora"].loras[0] == LoraUse(files[2])
    assert changed["strength"].loras[0].strength == 0.5 == changed["strength"].loras[0].text_strength
    assert (changed["strength_clip"].loras[0].strength, changed["strength_clip"].loras[0].text_strength) == (1, 0.25)
    assert changed["blocks"].loras[0].blocks.startswith("1,1,1")
    assert changed["checkpoint"].checkpoint == "other.ckpt"
    assert (changed["prompt"].request.prompt, changed["prompt"].request.negative) == ("a blue cat", "blue blur")
    assert all(other.loras[1] == cell.loras[1] for other in changed.values())
    for name, value in (("seed", 9), ("cfg", 3.5), ("steps", 7), ("sampler", "heun"), ("scheduler", "karras")):
        assert getattr(changed[name].request, name) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("sampler", "euler, magic", "'magic' is unknown; known: euler, heun"),
        ("style", "1", "(?s)axis: 'style' is unknown; known:\n  lora: LoRA files.*strength: "),
        ("checkpoint", " ", "checkpoint: the axis has no values; models"),
        ("lora", "nowhere.safetensors", "there is no LoRA file 'nowhere.safetensors'"),
    ],
)
def test_mistakes(kind, text, message):
    with pytest.raises((ConfigError, ModelFileError), match=message):
        make_axis(kind, text, NAMES)


@pytest.mark.parametrize(("kind", "text", "message"), [("cfg", "900", "cfg: .* 100"), ("prompt", "dog, cat", "'dog', is what is replaced")])
def test_values_that_do_not_fit(kind, text, message):
    with pytest.raises(ConfigError, match=message):
        make_axis(kind, text, NAMES).put(Cell(REQUEST), 0)
    with pytest.raises(ConfigError, match="strength: this axis needs a LoRA"):
        make_axis("strength", "1", NAMES).put(Cell(REQUEST), 0)


def test_search_and_replace_is_written_as_in_web_uis():
    axis = make_axis("prompt", 'red, "red, wet", 红色', NAMES)
    assert axis.labels == ("red", "red, wet", "红色")
    assert [axis.put(Cell(REQUEST), number).request.prompt for number in range(3)] == ["a red cat", "a red, wet cat", "a 红色 cat"]


def test_stacks(files):
    uses = parse_uses(f"{files[0]}:0.6\n{files[1]}:0.5:0\n{files[2]}", NAMES)
    assert [(use.file, use.strength, use.text_strength) for use in uses] == [(files[0], 0.6, 0.6), (files[1], 0.5, 0), (files[2], 1, 1)]


def test_files_of_a_pattern_a_folder_and_a_run(files, tmp_path):
    assert find_loras(str(tmp_path / "cat*.safetensors")) == files
    assert find_loras(str(tmp_path)) == files
    run = tmp_path / "run"
    run.mkdir()
    saved = [files[2], files[0], files[0], tmp_path / "deleted.safetensors"]
    lines = [{"event": "Saved", "step": 1, "kind": "lora", "path": str(path)} for path in saved]
    (run / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert find_loras(str(run)) == [files[2], files[0]]


def test_order_of_training(tmp_path):
    names = ["b", "a", "a-step00000020", "a-000010", "a-step00000003", "a-000009"]
    ordered = sorted((tmp_path / f"{name}.safetensors" for name in names), key=training_order)
    assert [path.stem for path in ordered] == ["a-000009", "a-000010", "a-step00000003", "a-step00000020", "a", "b"] or [
        path.stem for path in ordered
    ] == ["a-000009", "a-000010", "a", "a-step00000003", "a-step00000020", "b"]


def test_files_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / folder / "cat.safetensors" for folder in ("one", "two")]
    assert lora_axis([*paths, paths[0]]).labels == ("one/cat", "two/cat")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("SD15/model.safetensors; SDXL/model.safetensors; SD15/other.ckpt", ("SD15/model", "SDXL/model", "other")),
        ("a/new/model.ckpt\nb/new/model.ckpt", ("a/new/model", "b/new/model")),
        ("model.ckpt; model.safetensors", ("model.ckpt", "model.safetensors")),
        ("model.ckpt; old/model.ckpt; model.ckpt", ("model.ckpt", "old/model")),
    ],
)
def test_checkpoints_of_one_name_are_columns_of_their_own(text, labels):
    axis = make_axis("checkpoint", text, Names(checkpoint=lambda name: f"/models/{name}"))
    assert axis.labels == labels
    assert len(set(axis.values)) == len(labels) and axis.values[0].startswith("/models/")


def test_numbers_that_look_alike_are_columns_of_their_own():
    assert make_axis("strength", "0.50000001, 0.5, 0.50", NAMES).values == (0.50000001, 0.5)
