"""Configurations from files, presets and LoRAs, and the commands that show and save them."""

from __future__ import annotations

import json

import pytest
import tiny
import yaml

from trainer import load_config, train
from trainer.cli import main
from trainer.config import from_dict, load
from trainer.config.io import apply_overrides
from trainer.config.preset import presets
from trainer.errors import ConfigError, ModelFileError
from trainer.queue import QueueFolder
from trainer.queue.status import status_of
from trainer.reading import preset_effects, recorded_values, run_dir_in, save_config


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def job_file(base, tmp_path):
    path = tmp_path / "job.yaml"
    values = {"presets": ["anime_character"], "base": {"checkpoint": str(base)}, "dataset": {"folders": [{"path": "p"}]}}
    path.write_text(yaml.safe_dump({**values, "method": {"rank": 4}}), encoding="utf-8")
    return path


def test_the_family_of_presets_is_read_from_the_checkpoint(job_file):
    config = load_config(job_file, ["train.steps=7"], ["vram_8"])
    assert config.base.clip_skip == 2  # of the part for this family
    assert (config.optimizer.lr, config.optimizer.kind, config.dataset.batch_size) == (3e-4, "adamw8bit", 2)
    assert (config.method.rank, config.train.steps) == (4, 7)
    assert config.from_presets == ("anime_character", "vram_8")


def test_a_missing_checkpoint_is_named_only_when_a_preset_needs_it(tmp_path):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"base": {"checkpoint": "nowhere.safetensors"}, "dataset": {"folders": [{"path": "p"}]}}))
    assert load_config(path) == load(path)
    with pytest.raises(
        ConfigError, match=r"base\.checkpoint: 'nowhere\.safetensors' does not exist, and the presets need its model family"
    ):
        load_config(path, presets=["style"])
    named = load_config(path, ["base.family=sd15"], ["style"])
    assert named.optimizer.text_encoder_lr == 5e-5
    with pytest.raises(ConfigError, match=r"base\.family: 'sd99' is unknown"):
        load_config(path, ["base.family=sd99"], ["style"])


def test_a_preset_chosen_by_set_works_like_one_in_the_file(job_file):
    assert load_config(job_file, ["presets=[style]"]).from_presets == ("style",)


def test_effects_tell_what_holds_and_what_was_replaced(job_file):
    config = load_config(job_file, ["dataset.captions.keep_tokens=2"], ["vram_8"])
    effects = {preset.name: ([e.setting for e in held], [e.setting for e in replaced]) for preset, held, replaced in preset_effects(config)}
    held, replaced = effects["anime_character"]
    assert set(replaced) == {"method.rank", "method.alpha", "dataset.captions.keep_tokens"}
    assert {"dataset.captions.shuffle", "base.clip_skip", "optimizer.lr", "optimizer.text_encoder_lr"} <= set(held)
    assert "dataset.batch_size" in effects["vram_8"][0] and not effects["vram_8"][1]


def test_no_presets_have_no_effects(job_file):
    assert preset_effects(load_config(job_file, ["presets=[]"])) == []


@pytest.mark.parametrize("ending", [".yaml", ".yml", ".json"])
@pytest.mark.parametrize("full", [True, False])
def test_a_saved_configuration_reads_back_equal(job_file, tmp_path, ending, full):
    config = load_config(job_file, ["save.name=猫", "optimizer.args.betas=[0.9, 0.95]"], ["vram_6"])
    path = tmp_path / f"saved{ending}"
    save_config(config, path, full=full)
    assert load_config(path) == config
    values = json.loads(path.read_text("utf-8")) if ending == ".json" else yaml.safe_load(path.read_text("utf-8"))
    assert ("schedule" in values) == full
    assert ("precision" in values.get("train", {})) == full
    assert values == config.as_dict(full=full)


def test_only_differences_are_only_differences():
    values = {"base": {"checkpoint": "a"}, "dataset": {"folders": [{"path": "p"}, {"path": "q", "repeats": 3}]}, "train": {"epochs": 3}}
    assert from_dict(values).as_dict(full=False) == values


def test_another_ending_is_refused(job_file, tmp_path):
    with pytest.raises(ConfigError, match=r"job\.toml ends in '\.toml'; a configuration is saved as \.yaml, \.yml, \.json"):
        save_config(load_config(job_file), tmp_path / "job.toml")


def test_the_run_folder_and_the_lora_hold_the_resolved_configuration(base, tmp_path, capsys):
    pictures = tiny.write_pictures(tmp_path / "pictures", 2)
    values = tiny.job(base, pictures, tmp_path, train={"steps": 1}).as_dict(full=False)
    config = from_dict(values, ["object"], lambda _: "sd15")
    result = train(config)
    assert result.artefact is not None
    assert load(result.run_dir / "config.yaml") == config
    assert load_config(result.artefact) == config
    assert main(["config", str(result.artefact), "--out", str(tmp_path / "again.json")]) == 0
    assert load_config(tmp_path / "again.json") == config
    assert config.from_presets == ("object",)


def test_a_configuration_is_read_where_its_presets_cannot_be_compared(base, tmp_path, capsys):
    """The base model was moved, or a later version calls a preset otherwise."""
    values = {"base": {"checkpoint": str(base)}, "dataset": {"folders": [{"path": "p"}]}}
    config = from_dict(values, ["object"], lambda _: "sd15")
    path = tmp_path / "job.yaml"
    for changed in ({"base.checkpoint": "gone.safetensors"}, {"from_presets": '["an older name"]'}):
        save_config(from_dict(apply_overrides(config.as_dict(), [f"{key}={value}" for key, value in changed.items()])), path)
        assert main(["config", str(path)]) == 0
        assert not capsys.readouterr().err
    (tmp_path / "damaged.safetensors").write_bytes(b"x")
    assert (
        main(["config", str(path), "--set", "from_presets=[object]", "--set", f"base.checkpoint={tmp_path / 'damaged.safetensors'}"]) == 0
    )


def test_a_resumed_run_may_forget_its_presets(base, tmp_path):
    pictures = tiny.write_pictures(tmp_path / "pictures", 2)
    config = from_dict(tiny.job(base, pictures, tmp_path, train={"steps": 1}).as_dict(full=False), ["object"], lambda _: "sd15")
    train(config)
    plain = from_dict({**config.as_dict(), "from_presets": [], "train": {**config.as_dict()["train"], "steps": 2}})
    assert train(plain, resume=True).steps == 2


def test_files_without_a_configuration_are_named(tmp_path):
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"a": zeros(1)}, tmp_path / "plain.safetensors", {"ss_tag": "x"})
    with pytest.raises(ConfigError, match=r"plain\.safetensors has no configuration in its metadata"):
        recorded_values(tmp_path / "plain.safetensors")
    with pytest.raises(ModelFileError, match="does not exist"):
        load_config(tmp_path / "none.safetensors")


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_config_command_prints_what_loads_back(job_file, capsys):
    code, out, err = run(capsys, "config", str(job_file), "--preset", "vram_8", "--set", "save.name=x")
    assert code == 0
    assert from_dict(yaml.safe_load(out)) == load_config(job_file, ["save.name=x"], ["vram_8"])
    assert "preset anime_character: 6 of 8 settings hold; other values for method.rank, method.alpha\npreset vram_8: " in err
    code, out, _ = run(capsys, "config", str(job_file), "--full", "--json")
    *text, last = out.splitlines()
    assert json.loads(last)["config"] == yaml.safe_load("\n".join(text)) == load_config(job_file).as_dict()


def test_the_config_command_never_replaces_a_file(job_file, tmp_path, capsys):
    before = job_file.read_text("utf-8")
    code, _, err = run(capsys, "config", str(job_file), "--out", str(job_file))
    assert code == 2 and "exists already" in err and job_file.read_text("utf-8") == before
    code, out, _ = run(capsys, "config", str(job_file), "--out", str(tmp_path / "deep" / "new.yaml"))
    assert (code, out) == (0, f"saved {tmp_path / 'deep' / 'new.yaml'}\n")
    assert load_config(tmp_path / "deep" / "new.yaml") == load_config(job_file)


def test_the_check_command_takes_presets(base, tmp_path, capsys):
    pictures = tiny.write_pictures(tmp_path / "pictures", 2)
    path = tmp_path / "job.yaml"
    save_config(tiny.job(base, pictures, tmp_path), path)
    code, out, err = run(capsys, "check", str(path), "--preset", "object", "--preset", "vram_6")
    assert code == 0 and "preset object: " in err and "preset vram_6: " in err
    assert "other values for dataset.batch_size" in err
    code, _, err = run(capsys, "check", str(path), "--preset", "objekt")
    assert code == 2 and "did you mean 'object'?" in err


def test_the_tags_command_takes_presets_with_a_part_per_family(job_file, tmp_path, capsys):
    pictures = tiny.write_pictures(tmp_path / "pictures", 2)
    code, out, err = run(capsys, "tags", str(job_file), "--set", f"dataset.folders.0.path={pictures}")
    assert code == 0 and "2\tplain" in out.splitlines(), err


@pytest.fixture
def lost_job(job_file, tmp_path):
    """A configuration with such presets whose checkpoint is gone, and the log of its run."""
    values = yaml.safe_load(job_file.read_text("utf-8"))
    values |= {"base": {"checkpoint": str(tmp_path / "gone.safetensors")}, "save": {"dir": str(tmp_path / "out"), "name": "猫"}}
    job_file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    log = tmp_path / "out" / "猫" / "log.jsonl"
    log.parent.mkdir(parents=True)
    steps = [{"event": "StepDone", "step": step, "total": 50, "loss": 0.5, "lr": {"unet": 1e-4}} for step in range(1, 41)]
    log.write_text("\n".join(json.dumps(step) for step in steps), encoding="utf-8")
    return job_file


def test_the_run_of_a_configuration_is_found_without_its_checkpoint(lost_job, tmp_path, capsys):
    assert run_dir_in(lost_job) == tmp_path / "out" / "猫"
    code, out, err = run(capsys, "loss", str(lost_job), "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["steps"] == 40, err


def test_a_running_job_of_a_queue_shows_its_progress_whatever_its_presets(lost_job, tmp_path):
    queue = QueueFolder(tmp_path / "queue")
    queue.add("cat.yaml", lost_job.read_text("utf-8"))
    assert queue.claim() is not None
    assert [row.text for row in status_of(queue)] == ["step 40 of 50, loss 0.5000"]


def test_no_part_of_a_preset_for_one_family_says_where_a_run_lies():
    entries = [entry for preset in presets().values() for family in preset.families.values() for entry in family]
    assert entries and not [entry.setting for entry in entries if entry.setting.startswith("save.")]


def test_the_presets_command_lists_all(capsys):
    code, out, _ = run(capsys, "presets")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 10
    assert lines[0] == "anime_character   Anime character" and lines[5] == "vram_6            6 GB of graphics memory"
    code, out, _ = run(capsys, "presets", "--language", "zh", "--json")
    assert json.loads(out.splitlines()[-1])["presets"][0]["title"] == "动漫角色"


def test_the_presets_command_shows_settings_with_their_reasons(capsys):
    code, out, _ = run(capsys, "presets", "anime_character", "vram_8", "--family", "sd15", "--json")
    assert code == 0
    assert "  optimizer.lr = 0.0003\n      3e-4 for the image part" in out and "for sdxl:" not in out and "1024" not in out
    shown = json.loads(out.splitlines()[-1])["presets"]
    assert [preset["name"] for preset in shown] == ["anime_character", "vram_8"]
    assert shown[1]["settings"]["sd15"]["dataset.batch_size"]["value"] == 2
    code, out, _ = run(capsys, "presets", "anime_character")
    assert "for sdxl:\n  dataset.resolution = 1024" in out
    for wrong in (["presets", "nothing"], ["presets", "style", "--family", "sd99"]):
        assert run(capsys, *wrong)[0] == 2
