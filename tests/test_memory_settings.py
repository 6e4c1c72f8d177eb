"""Settings that save memory, through whole trainings of a tiny model."""

from __future__ import annotations

import pytest
import tiny
import torch

from trainer import train
from trainer.events import CacheProgress, StepDone, Warned
from trainer.families import FAMILIES, find_family, load_base, storage
from trainer.families.sd import StableDiffusion
from trainer.families.storage import StoredLayer

METHOD = {"rank": 4, "alpha": 4, "conv_rank": 2}


@pytest.fixture(autouse=True)
def _store_small_layers_too(monkeypatch):
    monkeypatch.setattr(storage, "SMALLEST_SIDE", 32)


def trained(config, **options) -> dict[str, torch.Tensor]:
    return tiny.tensors_of(train(config, **options).artefact)


def _round_weights(monkeypatch, kind: str) -> None:
    """Loads networks whose ordinary weights are what is left of them after packing."""
    load = StableDiffusion.load

    def rounded(self, *arguments):
        model = load(self, *arguments)
        for network in (model.unet, *model.text_encoders.values()):
            for layer in storage._large_layers(network):
                weight = layer.get_parameter("weight")
                way = storage.STORAGES[kind]
                weight.data = way.unpack(way.pack(weight), weight.shape, weight.dtype)
        return model

    monkeypatch.setattr(StableDiffusion, "load", rounded)


@pytest.mark.parametrize("kind", ["fp8", "int8", "nf4"])
def test_training_on_packed_weights_is_training_on_the_rounded_model(job, monkeypatch, kind):
    packed = trained(job(method=METHOD, memory={"weights": kind}, save={"name": "packed", "dtype": "fp32"}))
    full = trained(job(method=METHOD, save={"name": "full", "dtype": "fp32"}))
    _round_weights(monkeypatch, kind)
    rounded = trained(job(method=METHOD, save={"name": "rounded", "dtype": "fp32"}))
    assert set(packed) == set(rounded)
    # Adam's first steps have the size of the learning rate whatever the gradient: rounding may turn single numbers, not the whole.
    distance = {name: sum(float((one[n] - two[n]).square().sum()) for n in one) for name, one, two in _pairs(packed, rounded, full)}
    assert distance["rounded"] < 1e-4 * distance["full"]


def _pairs(packed, rounded, full):
    return ("rounded", packed, rounded), ("full", packed, full)


def test_offloaded_weights_change_no_number(job):
    plain = trained(job(method=METHOD, save={"name": "plain", "dtype": "fp32"}))
    events: list = []
    offloaded = trained(job(method=METHOD, memory={"offload": 0.6}, save={"name": "offloaded", "dtype": "fp32"}), listen=events.append)
    for name, tensor in plain.items():
        torch.testing.assert_close(offloaded[name], tensor, atol=1e-5, rtol=1e-4)
    assert any("memory.offload: has no effect on the CPU" in event.text for event in events if isinstance(event, Warned))


def test_dora_and_a_stopped_run_go_on_exactly_over_packed_weights(job):
    sections = {"method": {**METHOD, "dora": True}, "memory": {"weights": "int8"}}
    whole = trained(job(**sections, save={"name": "whole", "dtype": "fp32"}))
    config, done = job(**sections, save={"name": "parts", "dtype": "fp32"}), []
    stopped = train(config, listen=lambda event: done.append(event) if isinstance(event, StepDone) else None, stop=lambda: len(done) >= 2)
    assert stopped.status == "stopped"
    assert tiny.differing(whole, trained(config, resume=True)) == []


def test_captions_encoded_by_packed_weights_are_cached_apart(job):
    """The second run may not take what the first, whole one, left in the cache."""
    only_unet = {"rank": 4, "train_text_encoder": False}
    steps = {"steps": 1, "precision": "fp32", "device": "cpu"}
    losses = {}
    for name, kind in (("a", "full"), ("b", "nf4")):
        events: list = []
        train(job(method=only_unet, train=steps, memory={"weights": kind}, save={"name": name}), listen=events.append)
        losses[name] = [event.loss for event in events if isinstance(event, StepDone)]
        fresh = job(
            method=only_unet, train=steps, memory={"weights": kind}, save={"name": f"{name}_fresh", "dir": f"{job().save.dir}_{name}"}
        )
        events.clear()
        train(fresh, listen=events.append)
        assert [event.loss for event in events if isinstance(event, StepDone)] == losses[name]
    assert losses["a"] != losses["b"]


def test_checkpointing_every_second_block_recomputes_less_and_learns_the_same(job, monkeypatch):
    from trainer.adapters.lora import Lora

    add, calls = Lora.add, []
    monkeypatch.setattr(Lora, "add", lambda *arguments: calls.append(1) or add(*arguments))
    options = {"steps": 2, "precision": "fp32", "device": "cpu"}
    counts, files = [], []
    for number, more in enumerate(({}, {"gradient_checkpointing": True}, {"gradient_checkpointing": True})):
        memory = {"checkpoint_every": 2 if number == 1 else 1}
        calls.clear()
        files.append(trained(job(method=METHOD, train={**options, **more}, memory=memory, save={"name": f"n{number}", "dtype": "fp32"})))
        counts.append(len(calls))
    assert counts[0] < counts[1] < counts[2]
    for name, tensor in files[0].items():  # sums of gradients may be taken in another order
        torch.testing.assert_close(files[1][name], tensor, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(files[2][name], tensor, atol=1e-5, rtol=1e-4)


def test_checkpoint_every_alone_is_named_as_without_effect(job):
    events: list = []
    train(job(train={"steps": 1, "precision": "fp32", "device": "cpu"}, memory={"checkpoint_every": 2}), listen=events.append)
    assert any("memory.checkpoint_every: has no effect" in event.text for event in events if isinstance(event, Warned))


def test_the_unet_comes_to_the_device_when_the_encoders_have_done_their_work(job, monkeypatch):
    from trainer import run
    from trainer.families import Model

    models: list[Model] = []
    load = run.load_base

    def loaded(*arguments, **options):
        models.append(load(*arguments, **options))
        return models[-1]

    def listen(event):
        if isinstance(event, (CacheProgress, StepDone)):
            stored = any(isinstance(layer, StoredLayer) for layer in models[0].unet.modules())
            seen.append((type(event).__name__, stored, models[0].text_encoders != {}))

    seen: list[tuple[str, bool, bool]] = []
    monkeypatch.setattr(run, "load_base", loaded)
    only_unet = {**METHOD, "train_text_encoder": False}
    train(job(method=only_unet, memory={"weights": "int8"}, train={"steps": 1, "precision": "fp32", "device": "cpu"}), listen=listen)
    assert set(seen) == {("CacheProgress", False, True), ("StepDone", True, False)}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_encoding_takes_the_unet_into_account_where_it_waits(job, monkeypatch, device):
    """On a GPU it waits in the computer's memory; on the CPU that is the same memory."""
    from trainer import estimate

    monkeypatch.setattr(estimate, "resolve_device", lambda _: torch.device(device))
    config = job(train={"precision": "fp32"})
    family = find_family(config.base.checkpoint, "auto", FAMILIES)
    model = load_base(family, config.base, torch.device("meta"), torch.float32, config.memory)
    unet, encoders = (
        sum(tensor.numel() * 4 for network in networks for tensor in network.parameters())
        for networks in ([model.unet], [model.vae, *model.text_encoders.values()])
    )
    found = estimate.estimate(config, family, model, (64, 64)).encoding_mib * 2**20
    least = encoders + (unet if device == "cpu" else 0)
    assert least < found < least + unet
