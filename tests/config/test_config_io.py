from __future__ import annotations

import json

import pytest
import yaml

from trainer.config import TrainConfig, from_dict, load, to_yaml
from trainer.config.sizes import parse_size
from trainer.errors import ConfigError

GOOD = {"base": {"checkpoint": "a.safetensors"}, "dataset": {"folders": [{"path": "pictures"}]}}
RICH = {
    "base": {"checkpoint": "modèle.safetensors", "vae": "v.safetensors", "clip_skip": 2},
    "dataset": {
        "folders": [{"path": "a", "repeats": 3}, {"path": "b", "class_words": "a cat"}],
        "resolution": "512x768",
        "captions": {"extensions": [".txt", ".wd"], "shuffle": True},
        "cache": {"dir": "c"},
    },
    "method": {"rank": 8, "alpha": 4, "train_text_encoder": False},
    "optimizer": {"lr": "1e-4", "unet_lr": 2e-4, "args": {"betas": [0.9, 0.98], "weight_decay": 0.02}},
    "schedule": {"kind": "cosine_with_restarts", "warmup": 10, "cycles": 3},
    "train": {"steps": 7, "precision": "fp32", "seed": 2**63 - 1},
    "save": {"dir": "o", "name": "猫 v1", "every_epochs": None, "every_steps": 5, "comment": "line\nline"},
    "sample": {"prompts": ["a cat", {"prompt": "two", "size": [64, 128], "cfg": 1}], "every_epochs": None},
    "validate": {"split": 0.1},
}


def changed(path: str, value) -> dict:
    """GOOD with one field set, written as section.field; a value of ... removes it."""
    values = json.loads(json.dumps(GOOD))
    target = values
    *parents, last = path.split(".")
    for key in parents:
        target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return values


def problems(values) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    return caught.value.problems


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("trian", {}, "trian: unknown key; did you mean 'train'?"),
        ("train.epoch", 3, "train.epoch: unknown key; did you mean 'epochs'?"),
        ("dataset.captions.shufle", True, "dataset.captions.shufle: unknown key; did you mean 'shuffle'?"),
        ("dataset.folders.0.repeat", 3, "dataset.folders.0.repeat: unknown key; did you mean 'repeats'?"),
        ("schedule.zzz", 1, "schedule.zzz: unknown key; known: kind, warmup, cycles, power"),
        ("base.checkpoint", ..., "base.checkpoint: missing; A .safetensors or .ckpt file, or a diffusers folder"),
        ("dataset.folders", ..., "dataset.folders: missing; Folders of pictures"),
        (
            "dataset.folders.0.path",
            ...,
            "dataset.folders.0.path: missing; A folder of pictures, or the parent of folders named N_concept (N = repeats)",
        ),
        ("base", ..., "base: missing; it must be given"),
        ("train.epochs", "many", "train.epochs: input should be a valid integer, unable to parse string as an integer (got 'many')"),
        ("train.epochs", 0, "train.epochs: input should be greater than or equal to 1 (got 0)"),
        ("train.epochs", True, "train.epochs: expected a number, not yes/no (got True)"),
        ("train.epochs", 1.5, "train.epochs: input should be a valid integer, got a number with a fractional part (got 1.5)"),
        ("optimizer.lr", True, "optimizer.lr: expected a number, not yes/no (got True)"),
        ("optimizer.lr", -1e-4, "optimizer.lr: input should be greater than or equal to 0 (got -0.0001)"),
        ("method.alpha", 0, "method.alpha: input should be greater than 0 (got 0)"),
        ("train.precision", "fp8", "train.precision: input should be 'fp32', 'bf16' or 'fp16' (got 'fp8')"),
        ("dataset.resolution", 500, "dataset.resolution: sides must be multiples of 8 between 16 and 8192, got 500x500 (got 500)"),
        ("dataset.resolution", "big", "dataset.resolution: expected a size such as 512 or 512x768, got 'big' (got 'big')"),
        ("dataset.background", "greenish", "dataset.background: unknown color specifier: 'greenish' (got 'greenish')"),
        ("dataset.buckets.step", 12, "dataset.buckets.step: input should be a multiple of 8 (got 12)"),
        ("save.name", "a/b", "save.name: 'a/b' cannot be a file name: leave out \\ / : * ? \" < > | and outer spaces or dots (got 'a/b')"),
        ("sample.prompts", [{"promt": "x", "prompt": "y"}], "sample.prompts.0.promt: unknown key; did you mean 'prompt'?"),
        ("dataset.folders", [], "dataset.folders: tuple should have at least 1 item after validation, not 0 (got [])"),
    ],
)
def test_one_mistake_gives_one_sentence(path, value, sentence):
    assert problems(changed(path, value)) == [sentence]


@pytest.mark.parametrize("value", ["lora", 3, ["adapter"]])
def test_a_section_that_is_no_mapping_is_named(value):
    (sentence,) = problems({**GOOD, "method": value})
    assert sentence.startswith("method: ") and sentence.endswith(f"(got {value!r})")


def test_all_mistakes_are_reported_at_once():
    values = {"base": {"chekpoint": "a"}, "dataset": {"folders": [{"path": "p", "repeats": 0}]}, "train": {"seed": -1}}
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    paths = [problem.split(":")[0] for problem in caught.value.problems]
    assert sorted(paths) == ["base.checkpoint", "base.chekpoint", "dataset.folders.0.repeats", "train.seed"]
    assert str(caught.value).startswith("4 settings are wrong:\n  ")


@pytest.mark.parametrize("ending", [".yaml", ".yml", ".json"])
@pytest.mark.parametrize("values", [GOOD, RICH])
def test_a_written_configuration_reads_back_equal(tmp_path, ending, values):
    config = from_dict(values)
    path = tmp_path / f"job{ending}"
    path.write_text(json.dumps(config.as_dict()) if ending == ".json" else to_yaml(config), encoding="utf-8")
    again = load(path)
    assert again == config
    assert again.as_dict() == config.as_dict()


def test_yaml_and_json_texts_of_one_job_are_equal(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(RICH), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(RICH), encoding="utf-8-sig")
    assert load(tmp_path / "a.yaml") == load(tmp_path / "a.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", [".yaml", ".json"])
def test_a_file_may_be_written_as_notepad_and_powershell_do(tmp_path, ending, encoding):
    path = tmp_path / f"job{ending}"
    path.write_text(json.dumps(RICH, ensure_ascii=False), encoding=encoding)
    assert load(path) == from_dict(RICH)


def test_the_configuration_is_frozen():
    config = from_dict(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "found list"),
        ("base: [unclosed\n", "is not valid yaml"),
        ("", "found NoneType"),
        ("just words", "found str"),
    ],
)
def test_files_without_sections_are_refused(tmp_path, text, words):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"), [("2020-01-01: 3", "2020-01-01: unknown key"), ("train: {2020-01-01: 3}", "train.2020-01-01: unknown key")]
)
def test_a_key_that_yaml_reads_as_a_date_is_named(tmp_path, text, sentence):
    (tmp_path / "job.yaml").write_text(f"{yaml.safe_dump(GOOD)}{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        load(tmp_path / "job.yaml")


def test_a_missing_and_an_undecodable_file_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    (tmp_path / "latin.yaml").write_bytes("base: {checkpoint: modèle.safetensors}".encode("latin-1"))
    for name in ("bad", "latin"):
        with pytest.raises(ConfigError, match=rf"{name}\.yaml cannot be read: .*; save the file as UTF-8"):
            load(tmp_path / f"{name}.yaml")


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.steps=100", ("train", "steps"), 100),
        ("optimizer.lr=3e-5", ("optimizer", "lr"), 3e-5),
        ("save.name=x=y", ("save", "name"), "x=y"),
        ("dataset.folders.1.repeats=9", ("dataset", "folders", 1, "repeats"), 9),
        ("dataset.resolution=[512, 640]", ("dataset", "resolution"), (512, 640)),
        ("sample.prompts=[a, b]", ("sample", "prompts", 1, "prompt"), "b"),
        ("optimizer.args.betas=[0.8, 0.9]", ("optimizer", "args", "betas"), [0.8, 0.9]),
        ("base.vae=", ("base", "vae"), None),
        ("dataset.cache.text=off", ("dataset", "cache", "text"), False),
    ],
)
def test_overrides_replace_one_field(tmp_path, override, path, value):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(RICH))
    before, after = load(tmp_path / "job.yaml").as_dict(), load(tmp_path / "job.yaml", [override])
    found = after
    for key in path:
        found = found[key] if isinstance(key, int) or isinstance(found, dict) else getattr(found, key)
    assert found == value
    different = [name for name, section in after.as_dict().items() if section != before[name]]
    assert different == [path[0]]


@pytest.mark.parametrize(
    "override",
    [
        "train.steps",
        "=3",
        "dataset.folders.9.path=x",
        "dataset.folders.x.path=y",
        "base.checkpoint.deeper=1",
        "base.checkpoint.much.deeper=1",
        "train.steps=[1",
    ],
)
def test_overrides_that_cannot_be_applied_are_named(tmp_path, override):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(RICH))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "job.yaml", [override, "train.seed=1", "nonsense"])
    assert [text.split(":")[0] for text in caught.value.problems] == [f"--set {override!r}", "--set 'nonsense'"]


def test_an_override_with_an_unknown_name_is_named_like_any_other(tmp_path):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ConfigError, match=r"train\.step: unknown key; did you mean 'steps'\?"):
        load(tmp_path / "job.yaml", ["train.step=5"])


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (512, (512, 512)),
        ("512", (512, 512)),
        ("512x768", (512, 768)),
        ("512X768", (512, 768)),
        (" 512 x 768 ", (512, 768)),
        ("512,768", (512, 768)),
        ("512×768", (512, 768)),
        ([512, 768], (512, 768)),
        ((640,), (640, 640)),
    ],
)
def test_forms_of_a_size(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value",
    ["", "big", "1x2x3", "-512", "512.5", 512.5, [512.7, 768], [], [1, 2, 3], [None, 512], ["a", 512], True, [True, 512], None, {"w": 1}],
)
def test_what_is_no_size_is_refused_as_a_setting(value):
    (sentence,) = problems(changed("dataset.resolution", value))
    assert sentence.startswith("dataset.resolution: expected a size such as 512 or 512x768")


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("one", ["one"]),
        ("one\n\n  \ntwo, three\n", ["one", "two, three"]),
        (["one", {"prompt": "two", "seed": 5}], ["one", "two"]),
        ([], []),
    ],
)
def test_forms_of_prompts(value, texts):
    config = from_dict(changed("sample.prompts", value))
    assert [prompt.prompt for prompt in config.sample.prompts] == texts
    assert all(prompt.seed in (None, 5) for prompt in config.sample.prompts)


def every_field(section: type, path: str = ""):
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            yield from every_field(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", field


def test_every_field_has_a_help_text():
    fields = dict(every_field(TrainConfig))
    assert len(fields) > 50
    assert [name for name, field in fields.items() if not (field.description or "").strip()] == []
