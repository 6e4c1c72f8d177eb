"""A step asks the device for nothing but the losses, once, after all its work was given to it.

The meta device stands for a GPU: it has shapes and no numbers, so whatever asks for a number, or copies one to the host, fails.
"""

from __future__ import annotations

import pytest
import torch

from trainer import loop
from trainer.compiled import Compilation
from trainer.families import FAMILIES, find_family, load_base
from trainer.feed import Batch
from trainer.ladder import Ladder
from trainer.methods import METHODS
from trainer.objective import make_objective
from trainer.optim import build_averaging, build_optimizer
from trainer.plan import make_plan
from trainer.precision import DTYPES, LossScaler

META = torch.device("meta")


def ready(config, steps: int = 2) -> tuple[loop.Job, list]:
    """A job on the meta device, and what it will tell."""
    family, told = find_family(config.base.checkpoint, "auto", FAMILIES), []
    model = load_base(family, config.base, META, DTYPES[config.train.precision], config.memory)
    method = METHODS[config.method.kind](config.method, config.optimizer)
    method.attach(family, model, config.train.seed)
    groups = method.groups()
    optimizer = build_optimizer(config.optimizer, [{"params": group.parameters, "name": group.name, "lr": group.lr} for group in groups])
    averaging = build_averaging(config.optimizer, config.train.ema, optimizer)
    objective = make_objective(config.loss, config.noise, model.schedule)
    job = loop.Job(
        plan=make_plan(config),
        family=family,
        model=model,
        method=method,
        feed=None,
        objective=objective,
        optimizer=optimizer,
        rates=[group.lr for group in groups],
        scaler=LossScaler(META, model.dtype),
        averaging=averaging,
        ladder=Ladder(family, model, config),
        compilation=Compilation(model, None),
        periodic=[],
        listen=told.append,
        stop=lambda: False,
    )
    return job, told


def batch(config, number: int) -> Batch:
    """Two samples as the feed makes them, on the CPU."""
    conditioning = None if config.method.train_text_encoder else {"context": torch.zeros(2, 77, 32)}
    return Batch(
        files=("a", "b"),
        captions=["a", "b"],
        latents=torch.zeros(2, 4, 8, 8),
        pixels=None,
        conditioning=conditioning,
        seeds=(2 * number, 2 * number + 1),
        masks=torch.ones(2, 1, 8, 8),
        weights=(1.0, 0.5),
        sizes=torch.ones(2, 6),
    )


class Readings:
    """Takes the place of `Readback`; keeps the order of what happens."""

    def __init__(self, monkeypatch):
        self.order = []
        readings = self

        class Reading:
            def __init__(self, losses):
                assert losses.device == META
                self.count = len(losses)
                readings.order.append("forward")

            def get(self):
                readings.order.append("read")
                return [1.0] * self.count

        backward = LossScaler.backward
        monkeypatch.setattr(loop, "Readback", Reading)
        monkeypatch.setattr(LossScaler, "backward", lambda *given: (backward(*given), self.order.append("backward"))[0])


CASES = {
    "plain": {},
    "text encoder frozen": {"method": {"train_text_encoder": False}},
    "checkpointing": {"train": {"gradient_checkpointing": True, "precision": "bf16", "steps": 2}},
    "ema": {"train": {"ema": 0.99, "precision": "bf16", "steps": 2}},
    "dropout": {"method": {"rank_dropout": 0.2, "module_dropout": 0.4}},  # no generator draws on the meta device itself
    "dora": {"method": {"dora": True}},
    "lokr": {"method": {"adapter": "lokr", "rank": 2}},
    "loss and noise": {
        "loss": {"kind": "huber", "min_snr_gamma": 5},
        "noise": {"offset": 0.1, "multires_iterations": 3, "ip_gamma": 0.1, "adaptive_scale": 0.1},
    },
    "lora_plus": {"optimizer": {"lora_plus": 4}},
    "sgd": {"optimizer": {"kind": "sgd"}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_its_losses_alone(job, monkeypatch, case):
    sections = {"train": {"precision": "bf16", "steps": 2}, **CASES[case]}
    sections["optimizer"] = {"args": {"foreach": True}, **sections.get("optimizer", {})}  # there are no fused kernels for it
    config = job(**sections)
    readings = Readings(monkeypatch)
    running, told = ready(config)
    for step in range(2):
        assert loop._step(running, [batch(config, 2 * step), batch(config, 2 * step + 1)], 0.0)
    running.method.detach()
    assert readings.order == ["forward", "backward", "forward", "backward", "read", "read"] * 2
    assert [event.step for event in told] == [1, 2]


def test_a_number_asked_of_the_device_would_be_noticed():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(1, device=META).item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(torch.ones(1, device=META) > 0)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(1, device=META).cpu()
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(1, device=META).tolist()
