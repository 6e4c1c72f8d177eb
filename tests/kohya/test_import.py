"""Files as people have them, and what becomes of each line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from trainer.cli import main
from trainer.config import from_dict, load
from trainer.errors import ConfigError
from trainer.kohya import convert, read_files
from trainer.kohya.absent import NO_COUNTERPART, NOT_NEEDED
from trainer.kohya.names import ALIASES, ROWS
from trainer.kohya.read import Options

FILES = Path(__file__).parent / "files"
BASE = {"pretrained_model_name_or_path": "m.safetensors", "train_data_dir": "train", "resolution": "512"}


def imported(**values):
    """A script's settings, with a model and a folder."""
    return convert(Options({**BASE, **values}))


def window(**values):
    """Settings saved by the window."""
    return convert(Options({"lora_type": "Standard", **BASE, **values}, window=True))


def test_a_file_of_the_script_becomes_a_configuration():
    found = convert(read_files([FILES / "network.toml"]))
    config = from_dict(found.values)
    assert (config.base.checkpoint, config.base.vae, config.base.clip_skip) == ("models/sd-v1-5.safetensors", None, 2)
    assert config.dataset.folders[0].path == "train/heron"
    assert (config.dataset.resolution, config.dataset.batch_size) == ((512, 640), 4)
    buckets = config.dataset.buckets
    assert (buckets.enabled, buckets.upscale, buckets.min_side, buckets.max_side, buckets.step) == (True, False, 256, 960, 64)
    captions = config.dataset.captions
    assert (captions.extensions, captions.shuffle, captions.keep_tokens) == ((".txt",), True, 1)
    assert (config.method.adapter, config.method.rank, config.method.alpha) == ("lora", 32, 16.0)
    optimizer = config.optimizer
    assert (optimizer.kind, optimizer.lr, optimizer.unet_lr, optimizer.text_encoder_lr) == ("adamw8bit", 1e-4, 3e-4, 1e-4)
    assert optimizer.args == {"weight_decay": 0.02, "betas": [0.9, 0.98]}
    assert (config.schedule.kind, config.schedule.cycles, config.schedule.warmup) == ("cosine_with_restarts", 3, 0.1)
    train = config.train
    assert (train.epochs, train.steps, train.precision, train.seed) == (12, None, "bf16", 42)
    assert (train.gradient_accumulation, train.gradient_checkpointing) == (2, True)
    save = config.save
    assert (save.dir, save.name, save.every_epochs, save.every_steps, save.dtype) == ("out/heron", "heron_v2", 2, None, "fp16")
    assert found.unknown == ["lr_decay = 3"]
    assert "max_train_steps: left out; when both are given, epochs win there, but steps would here" in found.different
    assert any(text.startswith("face_crop_aug_range = '1.0,2.0': is not there") for text in found.lost)
    assert found.missing == []


def test_its_sample_prompts_come_from_the_file_beside_it():
    sample = from_dict(convert(read_files([FILES / "network.toml"])).values).sample
    first, second = sample.prompts
    assert (first.prompt, first.negative, first.size, first.seed) == ("heron in the reeds", "blurry, lowres", (512, 768), 7)
    assert (first.cfg, first.steps, first.sampler) == (6.5, 24, None)
    assert (second.prompt, second.sampler) == ("heron over a lake at dawn", "euler")
    assert (sample.sampler, sample.steps, sample.cfg, sample.size, sample.every_epochs) == ("euler_ancestral", 30, 7.5, (512, 512), 2)


def test_a_dataset_description_becomes_folders():
    found = convert(read_files([FILES / "dataset.toml"]))
    folders = from_dict(found.complete()).dataset.folders
    assert [(folder.path, folder.repeats, folder.class_words) for folder in folders[:2]] == [
        ("train/10_heron", 10, "heron bird"),
        ("train/marsh", 1, None),  # the scripts read no number from the names of described folders
    ]
    assert found.missing == ["base.checkpoint"]
    assert found.get("dataset.batch_size") == 3 and found.get("dataset.resolution") == [768, 768]
    assert "keep_tokens: differs between folders; it is one setting here, and 1 is taken" in found.different
    assert "method" not in found.values  # nothing is said about the network, so that no default is laid down


def test_settings_and_dataset_description_are_one_job(tmp_path):
    for name in ("network.toml", "dataset.toml", "prompts.txt"):
        shutil.copy(FILES / name, tmp_path)
    both = convert(read_files([tmp_path / "network.toml", tmp_path / "dataset.toml"]))
    assert (both.get("dataset.batch_size"), both.get("method.rank"), both.get("dataset.resolution")) == (3, 32, [768, 768])
    assert both.get("dataset.folders.0.path") == "train/10_heron"
    assert any(text.startswith("train_data_dir and reg_data_dir: ") for text in both.different)
    with (tmp_path / "network.toml").open("a") as file:
        file.write('\n[more]\ndataset_config = "dataset.toml"\n')
    assert convert(read_files([tmp_path / "network.toml"])).values == both.values
    (tmp_path / "dataset.toml").unlink()
    alone = convert(read_files([tmp_path / "network.toml"]))
    assert "dataset_config: dataset.toml was not found; give it as a second file" in alone.different


def test_a_preset_of_the_window_becomes_a_configuration():
    found = convert(read_files([FILES / "window.json"]))
    config = from_dict(found.values)
    assert (config.dataset.resolution, config.dataset.batch_size, config.dataset.buckets.max_side) == ((1024, 1024), 2, 2048)
    assert (config.train.epochs, config.train.seed, config.train.gradient_checkpointing) == (10, 1234, True)
    assert (config.schedule.kind, config.schedule.warmup) == ("cosine", 0.1)  # 10 percent
    assert (config.optimizer.lr, config.optimizer.unet_lr, config.optimizer.args["betas"]) == (1e-4, 3e-4, [0.9, 0.99])
    assert config.method.train_text_encoder is False and config.optimizer.text_encoder_lr is None
    assert (config.save.dir, config.save.every_steps) == ("C:\\lora\\out", None)
    assert [prompt.size for prompt in config.sample.prompts] == [(1024, 1024), None]
    assert config.dataset.captions.extensions == (".txt", ".caption")
    assert found.unknown == []
    assert "noise_offset: not in use, because noise_offset_type is Multires" in found.different
    assert not any("defaults are taken" in text for text in found.different)


@pytest.mark.parametrize("name", ["network.toml", "dataset.toml", "window.json"])
def test_every_line_of_a_file_ends_up_somewhere(name):
    options = read_files([FILES / name])
    found = convert(options)
    said = " ".join([*found.taken, *found.unknown, *found.lost, *found.needless, *found.different])
    names = {
        key for values in [options.values, *(options.subsets or [])] for key, value in values.items() if value not in ("", "0", 0, False)
    }
    off = {"bucket_no_upscale", "lowram", "v2", "zero_terminal_snr", "factor", "train_on_input", "unit", "conv_dim", "conv_alpha"}
    silent = {"lycoris_preset", "noise_offset_type", "save_model_as", "save_last_n_epochs", "network_args", "sample_every_n_steps"}
    assert {key for key in names if key not in said and ALIASES.get(key, key) not in said} <= off | silent


@pytest.mark.parametrize(
    ("values", "setting", "expected"),
    [
        ({"learning_rate": "1e-4"}, "optimizer.lr", 1e-4),
        ({"learning_rate": 1}, "optimizer.lr", 1.0),
        ({"gradient_checkpointing": "True"}, "train.gradient_checkpointing", True),
        ({"torch_compile": True}, "train.compile", "default"),
        ({"fp8_base": "true"}, "memory.weights", "fp8"),
        ({"fp8_base_unet": True}, "memory.weights", "fp8"),
        ({"shuffle_caption": "false"}, "dataset.captions.shuffle", False),
        ({"network_dim": "16"}, "method.rank", 16),
        ({"network_dim": 16.0}, "method.rank", 16),
        ({"network_dim": 16, "network_alpha": 0}, "method.alpha", 16),
        ({"vae": ""}, "base.vae", None),
        ({"vae": "None"}, "base.vae", None),
        ({"resolution": 768}, "dataset.resolution", [768, 768]),
        ({"resolution": [512, 768]}, "dataset.resolution", [512, 768]),
        ({"resolution": "512,768"}, "dataset.resolution", [512, 768]),
        ({"text_encoder_lr": [5e-5]}, "optimizer.text_encoder_lr", 5e-5),
        ({"text_encoder_lr": "[5e-5, 5e-5]"}, "optimizer.text_encoder_lr", 5e-5),
        ({"text_encoder_lr": 0}, "method.train_text_encoder", False),
        ({"network_train_unet_only": True}, "method.train_text_encoder", False),
        ({"network_train_text_encoder_only": True}, "method.train_unet", False),
        ({"max_train_steps": 500}, "train.steps", 500),
        ({"max_train_steps": 500, "max_train_epochs": 7}, "train.steps", None),
        ({"max_train_steps": 500, "max_train_epochs": 7}, "train.epochs", 7),
        ({"max_train_steps": 500, "max_train_epochs": ""}, "train.steps", 500),
        ({"lr_warmup_steps": 200, "lr_scheduler": "cosine"}, "schedule.warmup", 200.0),
        ({"lr_warmup_steps": 0.05, "lr_scheduler": "cosine"}, "schedule.warmup", 0.05),
        ({"lr_warmup_steps": "5%", "lr_scheduler": "cosine"}, "schedule.warmup", 0.05),
        ({"lr_warmup_steps": 100, "lr_scheduler": "constant"}, "schedule.kind", "constant_with_warmup"),
        ({"mixed_precision": "no"}, "train.precision", "fp32"),
        ({"save_precision": "float"}, "save.dtype", "fp32"),
        ({"enable_bucket": False, "min_bucket_reso": 320}, "dataset.buckets", {"enabled": False, "step": 64}),
        ({"bucket_no_upscale": True, "enable_bucket": True}, "dataset.buckets.upscale", False),
        ({"caption_extention": ".txt"}, "dataset.captions.extensions", [".txt"]),
        ({"optimizer_type": ""}, "optimizer.kind", "adamw"),
        ({"optimizer_type": "lion"}, "optimizer.kind", "lion"),
        ({"use_8bit_adam": True}, "optimizer.kind", "adamw8bit"),
        ({"optimizer_type": "SGDNesterov"}, "optimizer.args", {"momentum": 0.9, "nesterov": True}),
        ({"optimizer_args": "weight_decay=0.1 scale_parameter=False"}, "optimizer.args", {"weight_decay": 0.1, "scale_parameter": False}),
        ({"save_every_n_epochs": 0}, "save.every_epochs", None),
        ({"save_every_n_steps": "250"}, "save.every_steps", 250),
        ({"validation_split": 0.1}, "validate.split", 0.1),
    ],
)
def test_forms_of_values(values, setting, expected):
    found = imported(**values)
    assert found.get(setting) == expected
    from_dict(found.values)


@pytest.mark.parametrize(
    ("values", "setting", "expected"),
    [
        ({"v_parameterization": True}, "base.prediction", "v"),
        ({"v_parameterization": False}, "base.prediction", None),
        ({"zero_terminal_snr": True}, "base.zero_terminal_snr", True),
        ({"keep_tokens_separator": "|||"}, "dataset.captions.keep_tokens_separator", "|||"),
        ({"caption_dropout_rate": 0.1}, "dataset.captions.dropout", 0.1),
        ({"caption_dropout_every_n_epochs": 5}, "dataset.captions.dropout_every_epochs", 5),
        ({"caption_dropout_every_n_epochs": 0}, "dataset.captions.dropout_every_epochs", None),
        ({"caption_tag_dropout_rate": 0.2}, "dataset.captions.tag_dropout", 0.2),
        ({"caption_prefix": "photo of"}, "dataset.captions.prefix", "photo of"),
        ({"caption_suffix": "at dawn"}, "dataset.captions.suffix", "at dawn"),
        ({"enable_wildcard": True}, "dataset.captions.wildcards", True),
        ({"weighted_captions": True}, "dataset.captions.weighted", True),
        ({"max_token_length": 225}, "dataset.captions.max_tokens", 225),
        ({"text_encoder_lr": [1e-4, 5e-5]}, "optimizer.text_encoder_2_lr", 5e-5),
        ({"loss_type": "smooth_l1"}, "loss.kind", "smooth_l1"),
        ({"huber_schedule": "constant"}, "loss.huber_schedule", "constant"),
        ({"huber_c": 0.2}, "loss.huber_c", 0.2),
        ({"huber_scale": 2}, "loss.huber_scale", 2.0),
        ({"min_snr_gamma": "5"}, "loss.min_snr_gamma", 5.0),
        ({"min_snr_gamma": 0}, "loss.min_snr_gamma", None),
        ({"debiased_estimation_loss": True}, "loss.debiased", True),
        ({"scale_v_pred_loss_like_noise_pred": True}, "loss.scale_v_pred", True),
        ({"v_pred_like_loss": 0.5}, "loss.v_pred_like", 0.5),
        ({"prior_loss_weight": 0.5}, "loss.prior_weight", 0.5),
        ({"noise_offset": 0.05}, "noise.offset", 0.05),
        ({"noise_offset": 0.05, "noise_offset_random_strength": True}, "noise.offset_random", True),
        ({"noise_offset": 0.05, "adaptive_noise_scale": 0.01}, "noise.adaptive_scale", 0.01),
        ({"multires_noise_iterations": 6}, "noise.multires_iterations", 6),
        ({"multires_noise_discount": 0.4}, "noise.multires_discount", 0.4),
        ({"ip_noise_gamma": 0.1}, "noise.ip_gamma", 0.1),
        ({"network_args": ["down_lr_weight=0,0,1,1,1,1,1,1,1,1,1,1"]}, "method.blocks.down", "0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1"),
        ({"network_args": ["up_lr_weight=cosine+.25"]}, "method.blocks.up", "cosine+.25"),
        ({"network_args": ["mid_lr_weight=0.5"]}, "method.blocks.mid", "0.5"),
        ({"network_args": ["block_lr_zero_threshold=0.1"]}, "method.blocks.zero_threshold", 0.1),
        ({"network_args": ["block_dims=" + ",".join(["4"] * 25)]}, "method.blocks.ranks", ", ".join(["4"] * 25)),
        ({"min_timestep": 100}, "noise.min_timestep", 100),
        ({"max_timestep": 900}, "noise.max_timestep", 900),
    ],
)
def test_the_objective_and_captions(values, setting, expected):
    found = imported(**values)
    assert found.get(setting) == expected
    from_dict(found.values)
    assert set(values) - {"network_args"} <= set(found.taken)


def test_what_the_script_takes_by_default_is_written_out():
    config = from_dict(imported().values)
    assert (config.method.rank, config.method.alpha, config.optimizer.lr) == (4, 1.0, 2e-6)
    assert (config.train.steps, config.train.precision, config.schedule.kind) == (1600, "fp32", "constant")
    assert (config.dataset.buckets.enabled, config.dataset.captions.extensions) == (False, (".caption",))
    assert (config.save.every_epochs, config.save.dtype) == (None, "fp32")
    (text,) = [text for text in imported().different if "kohya's defaults are taken" in text]
    assert "network_dim 4" in text and "max_train_steps 1600" in text
    assert "max_train_steps" not in next(text for text in imported(max_train_epochs=3).different if "defaults" in text)


def test_the_windows_own_meanings():
    assert window(lr_scheduler="cosine", lr_warmup="5").get("schedule.warmup") == 0.05
    assert window(lr_scheduler="cosine", lr_warmup=10, lr_warmup_steps=300).get("schedule.warmup") == 300
    assert window(lr_scheduler="cosine", lr_warmup=10, lr_warmup_steps="0").get("schedule.warmup") == 0.1
    assert window(lr_scheduler="constant", lr_warmup=10).get("schedule.kind") == "constant"
    assert window(epoch="4", max_train_steps="").get("train.epochs") == 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"network_module": "lycoris.kohya", "network_args": ["algo=boft"]}, "network_module = 'lycoris.kohya boft': is not there"),
        ({"lr_scheduler": "adafactor"}, "lr_scheduler = 'adafactor': is not there; known here: constant, "),
        ({"token_warmup_step": 0.5}, "token_warmup_step = 0.5: is not there: the number of warm-up tags cannot grow"),
        ({"wandb_api_key": "secret-123"}, "wandb_api_key: is not there; nothing is uploaded"),
        ({"save_model_as": "ckpt"}, "save_model_as = 'ckpt': is not there: files are .safetensors"),
    ],
)
def test_what_nothing_here_does_is_named_with_a_sentence(values, words):
    found = imported(**values)
    assert any(text.startswith(words) for text in found.lost), found.lost
    assert "secret-123" not in str(found)
    from_dict(found.values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"netwrok_dim": 8}, "netwrok_dim = 8"),
        ({"network_dim": "many"}, "network_dim = 'many': "),
        ({"network_dim": 2.5}, "network_dim = 2.5: expected a whole number"),
        ({"shuffle_caption": "maybe"}, "shuffle_caption = 'maybe': expected True or False"),
        ({"optimizer_args": ["weight_decay"]}, "optimizer_args = ['weight_decay']: 'weight_decay' is not written as name=value"),
        ({"resolution": 500}, "dataset.resolution: sides must be multiples of 8"),
        ({"network_dim": 5000}, "method.rank: input should be less than or equal to 1024"),
    ],
)
def test_what_is_not_understood_is_named_and_left_out(values, words):
    found = imported(**values)
    assert any(text.startswith(words) for text in found.unknown), found.unknown
    from_dict(found.values)


def test_what_is_switched_off_is_not_worth_a_word():
    found = imported(lowram=False, xformers="none", logging_dir="", in_json=None, save_state="False", vae_batch_size="0")
    assert not found.lost and not found.needless
    assert imported(xformers="xformers", lowram=True).needless == [
        "xformers = 'xformers': torch's own fused attention is used",
        "lowram = True: loading and caching are arranged automatically",
    ]


def test_no_name_stands_in_two_tables():
    gone = [name for table in (NO_COUNTERPART, NOT_NEEDED) for names in table.values() for name in names]
    assert len(gone) == len(set(gone)) > 80
    assert not set(gone) & (set(ROWS) | set(ALIASES))
    assert set(ALIASES.values()) <= set(ROWS)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", 'output_dir = "C:\\lora"', "is not valid TOML"),
        ("a.toml", 'output_dir = "C:\\lora"', "write Windows paths in 'single quotes' or with /"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[1]", "should hold settings with names, found list"),
        ("a.toml", "datasets = [1]", "`datasets` should be a list of tables"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_files([tmp_path / name])
    assert words in str(caught.value) and str(tmp_path / name) in str(caught.value)
    with pytest.raises(ConfigError, match="does not exist"):
        read_files([tmp_path / "nowhere.toml"])


def test_the_command_prints_or_saves_what_load_reads(tmp_path, capsys):
    assert main(["import", str(FILES / "window.json")]) == 0
    shown = capsys.readouterr()
    assert from_dict(yaml.safe_load(shown.out)).save.name == "kettle"
    assert "settings taken over\n" in shown.err and "needs no setting here:\n  cache_latents = True: is always so\n" in shown.err
    out = tmp_path / "mine.yaml"
    assert main(["import", str(FILES / "network.toml"), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["not_understood"] == ["lr_decay = 3"] and report["missing"] == []
    assert load(out) == from_dict(report["config"])
    assert main(["import", str(FILES / "network.toml"), "--out", str(out)]) == 2


def test_the_command_writes_by_the_ending(tmp_path, capsys):
    out = tmp_path / "mine.json"
    assert main(["import", str(FILES / "network.toml"), "--out", str(out)]) == 0
    assert from_dict(json.loads(out.read_text("utf-8"))) == load(out)
    assert main(["import", str(FILES / "network.toml"), "--out", str(tmp_path / "mine.toml")]) == 2
    assert "a configuration is saved as .yaml, .yml, .json" in capsys.readouterr().err
    assert not (tmp_path / "mine.toml").exists()


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_files_in_other_encodings_are_read_or_named(tmp_path, encoding, capsys):
    path, prompts = tmp_path / "a.toml", tmp_path / "prompts.txt"
    path.write_text('pretrained_model_name_or_path = "modèle"\nsample_prompts = "prompts.txt"\n', encoding="utf-16")
    prompts.write_text("un modèle --w 64", encoding=encoding)
    values = convert(read_files([path]))
    assert values.values["base"]["checkpoint"] == "modèle"
    if encoding == "utf-16":
        assert values.values["sample"]["prompts"][0]["prompt"] == "un modèle"
    else:
        assert [text for text in values.lost if "save the file as UTF-8" in text]
    path.write_text('output_name = "modèle"', encoding="latin-1")
    assert main(["import", str(path)]) == 2
    assert "save the file as UTF-8" in capsys.readouterr().err
