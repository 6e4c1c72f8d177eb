"""What a step records of its losses: by timestep, beside the base model, and when they are not numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from trainer import loop, train
from trainer.cli import main
from trainer.errors import NonFiniteLoss
from trainer.events import LossNotFinite, StepDone
from trainer.log import LOG_FILE, history
from trainer.objective import batch_loss
from trainer.seeds import derive


def steps_of(config, monkeypatch):
    """The steps of a training, the batches that each consists of, and the saved file."""
    batches, events = [], []
    monkeypatch.setattr(loop, "batch_loss", lambda *given: batches.append(given[2]) or batch_loss(*given))
    result = train(config, listen=events.append)
    return [event for event in events if isinstance(event, StepDone)], batches, result


def test_losses_are_recorded_by_timestep_and_beside_the_base_model(job, monkeypatch):
    settings = {"steps": 4, "precision": "fp32", "device": "cpu", "gradient_accumulation": 2}
    watched = job(train=settings, validate={"base_every_steps": 2}, save={"name": "watched", "dtype": "fp32"})
    steps, batches, result = steps_of(watched, monkeypatch)
    plain, _, without = steps_of(
        job(train=settings, validate={"base_every_steps": None}, save={"name": "plain", "dtype": "fp32"}), monkeypatch
    )

    assert [step.loss for step in steps] == [step.loss for step in plain]
    assert tiny.differing(tiny.tensors_of(result.artefact), tiny.tensors_of(without.artefact)) == []
    assert [step.base_loss is not None for step in steps] == [False, True, False, True]
    assert all(step.base_loss is None for step in plain)

    family, model = tiny.load_model(Path(watched.base.checkpoint))
    second = batches[2]  # the epoch's third batch, alone in its step
    assert batches[3] is second
    with torch.no_grad():
        alone = batch_loss(family, model, second)
    assert steps[1].base_loss == pytest.approx(float(alone.mean()), rel=1e-5)
    assert steps[1].base_loss != steps[1].loss

    for step in steps:
        total = sum(samples for _, samples, _ in step.bands)
        assert sum(samples * loss for _, samples, loss in step.bands) / total == pytest.approx(step.loss)
    timesteps = [derive(seed, "timestep") % 1000 for seed in second.seeds]
    assert [band for band, _, _ in steps[1].bands] == sorted({timestep // 100 for timestep in timesteps})

    past = history(result.run_dir / LOG_FILE)
    assert past.base == [(2, steps[1].base_loss), (4, steps[3].base_loss)]
    assert past.bands == [[list(band) for band in step.bands] for step in steps]
    assert past.loss_map()["loss"] == list(result.losses)


def test_a_loss_that_is_no_number_is_in_the_log(job, monkeypatch, capsys):
    calls = []

    def poisoned(family, model, batch, objective):
        losses = batch_loss(family, model, batch, objective)
        calls.append(batch.files)
        return torch.cat([losses[:1], losses[1:] * float("nan")]) if len(calls) == 2 else losses

    monkeypatch.setattr(loop, "batch_loss", poisoned)
    events, config = [], job(dataset={"buckets": {"enabled": False}})
    with pytest.raises(NonFiniteLoss, match="at step 2"):
        train(config, listen=events.append)
    (failure,) = [event for event in events if isinstance(event, LossNotFinite)]
    assert (failure.step, failure.files) == (2, calls[1][1:])
    run_dir = Path(config.save.dir) / "tiny"
    capsys.readouterr()
    assert main(["loss", str(run_dir), "--png", str(run_dir / "again.png"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["verdict"], answer["steps"]) == ("not finite", 2)
    assert (run_dir / "again.png").is_file()
