"""The warning about a base model that seems to predict something else than it is trained for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch

from trainer import train
from trainer.config import FolderSection
from trainer.demo import base_folder, dataset_folder
from trainer.diffusion.objective import NoiseSchedule
from trainer.events import Warned
from trainer.families.sd import StableDiffusion
from trainer.feed import Batch
from trainer.prediction_check import prediction_warning

METHOD = SimpleNamespace(without=nullcontext)


class Knows:
    """A family whose model answers `kind` of the picture that it was told, with an error of `error` in each number."""

    def __init__(self, kind: str, error: float, scale: float = 1.0):
        self.kind, self.error, self.scale = kind, error, scale

    def predict(self, model, noisy, timesteps, _conditioning):
        alpha, sigma = model.schedule._factors(timesteps, noisy)
        noise = (noisy - alpha * LATENTS) / sigma
        answer = noise if self.kind == "epsilon" else alpha * noise - sigma * LATENTS
        return self.scale * (answer + self.error * torch.randn(answer.shape, generator=torch.Generator().manual_seed(1)))


LATENTS = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def doubt(family, prediction: str) -> str | None:
    batch = Batch(("a", "b"), ["a", "b"], LATENTS.repeat(2, 1, 1, 1), None, {}, (1, 2), masks=torch.ones(2, 1, 8, 8), weights=(1.0, 1.0))
    model = SimpleNamespace(schedule=NoiseSchedule.scaled_linear(prediction=prediction), device=torch.device("cpu"))
    return prediction_warning(family, model, METHOD, batch)


@pytest.mark.parametrize("error", [0.0, 0.2, 0.5])
def test_a_model_that_predicts_the_other_is_noticed(error):
    assert "seems to predict v, but it is trained to predict epsilon" in doubt(Knows("v", error), "epsilon")
    assert "set base.prediction to epsilon" in doubt(Knows("epsilon", error), "v")


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_right_and_untrained_models_give_no_warning(prediction):
    assert doubt(Knows(prediction, 0.5), prediction) is None
    assert doubt(Knows("v", 1.0, scale=0.0), prediction) is None  # answers nothing
    assert doubt(Knows("v", 30.0, scale=0.1), prediction) is None  # answers noise of its own


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_demo_base_is_a_model_that_predicts_noise(tmp_path, monkeypatch, prediction):
    """A really trained model; one step, with the text encoder and without."""
    load = StableDiffusion.load

    def changed(self, *given):
        model = load(self, *given)
        model.schedule = replace(model.schedule, prediction=prediction)
        return model

    monkeypatch.setattr(StableDiffusion, "load", changed)
    for text in (True, False):
        folders = [FolderSection(path=str(dataset_folder())).model_dump()]
        job = tiny.job(
            base_folder(), dataset_folder(), tmp_path,
            dataset={"folders": folders, "resolution": 64, "batch_size": 1}, method={"train_text_encoder": text},
            train={"steps": 1}, save={"name": f"text_{text}"},
        )  # fmt: skip
        events = []
        train(job, listen=events.append)
        warned = [event.text for event in events if isinstance(event, Warned) and "seems to predict" in event.text]
        assert len(warned) == (prediction == "v"), warned


def test_it_runs_once_and_not_when_resuming(job, monkeypatch):
    from trainer import run

    calls = []
    monkeypatch.setattr(run, "prediction_warning", lambda *_: calls.append(1) or "doubt")
    events = []
    train(job(), listen=events.append)
    assert len(calls) == 1 and [event.text for event in events if isinstance(event, Warned)][-1] == "doubt"
    train(job(), resume=True)
    assert len(calls) == 1


def test_it_does_not_change_the_training(job, monkeypatch):
    from trainer import run

    with_check = train(job(save={"name": "with", "dtype": "fp32"}))
    monkeypatch.setattr(run, "prediction_warning", lambda *_: None)
    without = train(job(save={"name": "without", "dtype": "fp32"}))
    assert with_check.losses == without.losses
    assert tiny.differing(tiny.tensors_of(with_check.artefact), tiny.tensors_of(without.artefact)) == []
