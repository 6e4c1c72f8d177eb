"""The memory estimate against what a real forward pass keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from trainer import check
from trainer.cheaper import advice, cheaper
from trainer.config import from_dict
from trainer.config.io import apply_overrides
from trainer.estimate import MIB, estimate
from trainer.families import FAMILIES, find_family, load_base
from trainer.feed import Batch
from trainer.live_bytes import LiveBytes
from trainer.methods import METHODS
from trainer.objective import batch_loss


def estimated(config, side: int) -> float:
    family, model = tiny.load_model(Path(config.base.checkpoint), device="meta")
    return estimate(config, family, model, (8 * side, 8 * side)).activations_mib * MIB


@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_of_a_real_pass_at_its_worst(job, side, checkpointing):
    """On the CPU with numbers, against shapes alone."""
    config = job(train={"steps": 1, "precision": "fp32", "device": "cpu", "gradient_checkpointing": checkpointing})
    family, model = tiny.load_model(Path(config.base.checkpoint))
    method = METHODS["adapter"](config.method, config.optimizer)
    method.attach(family, model, 1)
    if checkpointing:
        family.enable_checkpointing(model)
    batch = Batch(("a", "b"), ["a", "b"], torch.randn(2, 4, side, side), None, None, (1, 2))
    with LiveBytes() as live:
        method.before_forward()
        batch_loss(family, model, batch).sum().backward()
    method.detach()
    assert estimated(config, side) == pytest.approx(live.peak, rel=0.05)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_bytes_of_tensors_that_come_and_go(device):
    """4,000 bytes for 1,000 numbers; the sine keeps its input for the backward pass, whose product has a gradient of 4 MB."""
    weight = torch.ones(1000, 1000, device=device, requires_grad=True)
    with LiveBytes() as live:
        first = torch.zeros(1000, device=device)
        second = first + 1
        assert (live.now, live.peak) == (8000, 8000)
        del first
        assert (live.now, live.peak) == (4000, 8000)
        third = second[None] @ weight.t()  # views are nothing new
        assert live.now == 8000
        result = third.sin().sum()
        del third
        assert live.now == 8004
        result.backward()
        del result, second
        assert live.now == 4 * 1000 * 1000
    assert live.peak > 4 * 1000 * 1000 + 8000


def test_the_cheapest_settings_that_fit_are_named(job):
    config = job(dataset={"folders": job().dataset.model_dump(mode="json")["folders"], "resolution": 256, "batch_size": 4})
    family = find_family(config.base.checkpoint, "auto", FAMILIES)

    def need(*overrides: str) -> int:
        changed = from_dict(apply_overrides(config.as_dict(), overrides))
        model = load_base(family, changed.base, torch.device("meta"), torch.float32, changed.memory)
        return estimate(changed, family, model, (256, 256)).total_mib

    cpu = torch.device("cpu")
    saving = need("train.gradient_checkpointing=true")
    assert saving < need()
    advice = cheaper(config, family, (256, 256), cpu, saving)
    assert advice == f"it would fit, with {saving:,} MiB, if you set train.gradient_checkpointing=true"
    advice = cheaper(config, family, (256, 256), cpu, saving - 1)
    assert "memory.micro_batch=1" in advice
    advice = cheaper(config, family, (256, 256), cpu, 1)
    assert "memory.weights=nf4" in advice and "memory.weights=int8" not in advice and "memory.offload" not in advice
    assert "smaller dataset.resolution" in advice


@pytest.mark.parametrize("method", [{"train_unet": False}, {"include": ["lora_te*"]}])
def test_a_job_that_trains_the_text_encoder_alone_is_not_advised_to_leave_it_out(job, monkeypatch, method):
    monkeypatch.setattr("trainer.check_report.device_mib", lambda device: 300)
    (said,) = [text for text in check(job(method=method)).warnings if text.startswith("memory: ")]
    assert "memory.weights=nf4" in said and "train_text_encoder" not in said
    assert "train_text_encoder" not in advice(job(method={"train_unet": False}), torch.device("cpu"))


def test_where_everything_was_tried_no_setting_is_named(job):
    config = job(
        dataset={"folders": job().dataset.model_dump(mode="json")["folders"], "batch_size": 1},
        method={"train_text_encoder": False},
        train={"gradient_checkpointing": True},
        memory={"weights": "nf4"},
    )
    family = find_family(config.base.checkpoint, "auto", FAMILIES)
    assert cheaper(config, family, (64, 64), torch.device("cpu"), 1) == "choose a smaller dataset.resolution or another device"


def test_attention_scores_are_not_counted(job):
    """They would grow with the fourth power of the side."""
    small, large = estimated(job(), 32), estimated(job(), 64)
    assert large < 4 * small


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_the_size_of_the_file_is_known_beforehand(job, dtype):
    """Up to names, alphas and metadata; for a real model the numbers are those of its golden table, times rank / 4."""
    from trainer import train

    config = job(method={"rank": 16}, save={"dtype": dtype, "name": dtype})
    report = check(config)
    tensors = tiny.tensors_of(train(config).artefact)
    weights = sum(tensor.numel() for name, tensor in tensors.items() if ".lora_" in name)
    assert report.estimate.parameters == weights
    assert report.estimate.file_mib * MIB == weights * (2 if dtype == "fp16" else 4)
    assert f"{report.estimate.file_mib:.1f} MiB per file" in " ".join(report.lines())
