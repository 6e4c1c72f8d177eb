from __future__ import annotations

import hashlib
import json
import random
from types import SimpleNamespace

import pytest
import tiny
import torch
from safetensors import safe_open

from trainer import train
from trainer.metadata import _modelspec, short_file_hash, with_hashes


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    """A file trained on two folders with known captions, and its metadata."""
    folder = tmp_path_factory.mktemp("metadata")
    cats = tiny.write_pictures(folder / "pictures" / "3_sks cat", count=2)
    (cats / "00.txt").write_text("cat, red, outdoors")
    (cats / "01.txt").write_text("cat, blue")
    tiny.write_pictures(folder / "pictures" / "1_dog", count=1, captions=False)
    config = tiny.job(
        base,
        folder / "pictures",
        folder,
        method={"rank": 4, "alpha": 2},
        save={"name": "meta", "dtype": "fp16", "comment": "ein Kommentar"},
        schedule={"kind": "constant", "warmup": 0.5},
        loss={"kind": "smooth_l1", "huber_c": 0.2, "min_snr_gamma": 5, "prior_weight": 0.5},
        noise={"offset": 0.05, "ip_gamma": 0.1, "ip_gamma_random": True, "min_timestep": 100, "max_timestep": 900},
    )
    path = train(config).artefact
    with safe_open(path, "pt") as file:
        return path, file.metadata(), config


def test_model_hash_is_that_of_the_tensors_alone(saved):
    path, metadata, _ = saved
    data = path.read_bytes()
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def test_legacy_hash_is_that_of_64_kib_at_1_mib():
    """Of the serialisation that has only the ss_ entries; a shorter file has the hash of nothing."""
    from safetensors.torch import save

    small, large = {"a": torch.zeros(10)}, {"a": torch.arange(400_000.0), "b": torch.ones(3, dtype=torch.float16)}
    for tensors in (small, large):
        data = with_hashes(tensors, {"ss_x": "1", "modelspec.title": "t"})
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        expected = hashlib.sha256(save(tensors, {"ss_x": "1"})[0x100000:0x110000]).hexdigest()[:8]
        assert header["__metadata__"]["sshs_legacy_hash"] == expected
        assert (expected == "e3b0c442") == (tensors is small)
        assert header["__metadata__"]["modelspec.title"] == "t"


def test_tag_frequency_and_folders_are_counted_per_folder(saved):
    _, metadata, _ = saved
    assert json.loads(metadata["ss_tag_frequency"]) == {"3_sks cat": {"cat": 2, "red": 1, "outdoors": 1, "blue": 1}, "1_dog": {"dog": 1}}
    assert json.loads(metadata["ss_dataset_dirs"]) == {
        "3_sks cat": {"n_repeats": 3, "img_count": 2},
        "1_dog": {"n_repeats": 1, "img_count": 1},
    }
    assert json.loads(metadata["ss_bucket_info"])["buckets"] == {"0": {"resolution": [64, 64], "count": 7}}


def test_entries_that_other_programs_read(saved):
    _, metadata, _ = saved
    expected = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "2.0",
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_output_name": "meta",
        "ss_num_train_images": "7",
        "ss_num_batches_per_epoch": "4",
        "ss_num_epochs": "1",
        "ss_steps": "4",
        "ss_epoch": "1",
        "ss_max_train_steps": "4",
        "ss_resolution": "(64, 64)",
        "ss_clip_skip": "1",
        "ss_mixed_precision": "no",
        "ss_lr_warmup_steps": "0",  # the constant schedule has no warm-up
        "ss_training_comment": "ein Kommentar",
        "ss_loss_type": "smooth_l1",
        "ss_huber_c": "0.2",
        "ss_min_snr_gamma": "5.0",
        "ss_debiased_estimation": "False",
        "ss_prior_loss_weight": "0.5",
        "ss_noise_offset": "0.05",
        "ss_multires_noise_iterations": "None",
        "ss_ip_noise_gamma": "0.1",
        "ss_ip_noise_gamma_random_strength": "True",
        "modelspec.timestep_range": "100,900",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "meta",
        "modelspec.resolution": "64x64",
        "modelspec.prediction_type": "epsilon",
        "modelspec.encoder_layer": "1",
    }
    assert {name: metadata.get(name) for name in expected} == expected
    assert float(metadata["ss_training_finished_at"]) > float(metadata["ss_training_started_at"])
    assert all(isinstance(value, str) for value in metadata.values())


@pytest.mark.parametrize(
    ("family", "prediction", "version", "architecture"),
    [
        ("sd15", "v", "sd_v1_v", "stable-diffusion-v1"),
        ("sd2", "epsilon", "sd_v2", "stable-diffusion-v2-512"),
        ("sd2", "v", "sd_v2_v", "stable-diffusion-v2-768-v"),
        ("sdxl", "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
        ("sdxl", "v", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
    ],
)
def test_every_family_and_prediction_is_named_as_by_sd_scripts(base, pictures, tmp_path, family, prediction, version, architecture):
    folder = base if family == "sd15" else tiny.write_base(tmp_path / "base", family=family)
    config = tiny.job(
        folder,
        pictures,
        tmp_path,
        base={"checkpoint": str(folder), "prediction": prediction, "zero_terminal_snr": prediction == "v"},
        method={"rank": 1, "train_text_encoder": False},
        train={"steps": 1, "precision": "fp32", "device": "cpu"},
    )
    with safe_open(train(config).artefact, "pt") as file:
        metadata = file.metadata()
    expected = {
        "ss_base_model_version": version,
        "ss_v2": str(family == "sd2"),
        "ss_zero_terminal_snr": str(prediction == "v"),
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.prediction_type": prediction,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models" if family == "sdxl" else "diffusers",
    }
    assert {name: metadata.get(name) for name in expected} == expected


def test_the_configuration_can_be_read_from_the_file(saved):
    from trainer.config import from_dict

    _, metadata, config = saved
    assert from_dict(json.loads(metadata["lora_furnace_config"])) == config


def test_tensors_have_the_number_format_asked_for(saved):
    path, _, _ = saved
    tensors = tiny.tensors_of(path)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    alphas = [tensor for name, tensor in tensors.items() if name.endswith(".alpha")]
    assert len(alphas) == len(tensors) / 3
    assert all(tensor.dim() == 0 and float(tensor) == 2 for tensor in alphas)


@pytest.mark.parametrize(
    ("noise", "found"),
    [
        ({}, None),
        ({"min_timestep": 100}, "100,1000"),
        ({"max_timestep": 400}, "0,400"),
        ({"min_timestep": 1, "max_timestep": 999}, "1,999"),
    ],
)
def test_a_part_of_the_timesteps_is_said(base, pictures, tmp_path, noise, found):
    _, model = tiny.load_model(base)
    plan = SimpleNamespace(config=tiny.job(base, pictures, tmp_path, noise=noise))
    assert _modelspec(plan, model, 0.0).get("modelspec.timestep_range") == found


def test_short_file_hash(tmp_path):
    data = random.Random(1).randbytes(1_200_000)
    (tmp_path / "model").write_bytes(data)
    assert short_file_hash(tmp_path / "model") == hashlib.sha256(data[2**20 : 2**20 + 2**16]).hexdigest()[:8]
