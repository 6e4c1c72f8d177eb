"""torch.compile as an option: the same result, and a reason where it is not taken."""

from __future__ import annotations

import pytest
import tiny
import torch

from trainer import compiled, train
from trainer.config import from_dict
from trainer.events import SampleReady, Warned

STEPS = {"steps": 3, "precision": "fp32", "device": "cpu"}


def trained(job, name: str, listen=lambda _: None, **sections) -> dict[str, torch.Tensor]:
    options = STEPS | sections.pop("train", {})
    return tiny.tensors_of(train(job(train=options, save={"name": name, "dtype": "fp32"}, **sections), listen=listen).artefact)


@pytest.fixture
def traced(monkeypatch) -> list[int]:
    """torch.compile with torch's own kernels, and how often each of the graphs that it found was run."""
    runs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]):
        number = len(runs)
        runs.append(0)

        def run(*arguments):
            runs[number] += 1
            return graph.forward(*arguments)

        return run

    monkeypatch.setattr(compiled, "BACKEND", backend)
    return runs


@pytest.mark.parametrize("sections", [{"method": {"rank": 4, "conv_rank": 2, "dora": True}}, {"train": {"gradient_checkpointing": True}}])
def test_the_traced_network_gives_the_same_bits(job, traced, sections):
    plain = trained(job, "plain", **sections)
    assert not traced
    events = []
    found = trained(job, "traced", events.append, **sections | {"train": sections.get("train", {}) | {"compile": "default"}})
    assert [event.text for event in events if isinstance(event, Warned) and "compile" in event.text] == []
    assert sum(traced[1:]) >= 3, "beside the trial, each step ran at least one graph"
    assert tiny.differing(plain, found) == []


def test_samples_go_without(job, traced):
    """Each size and each guidance would be compiled anew."""
    runs = []
    for name, every in (("with", 1), ("without", None)):
        before = sum(traced)
        sample = {"prompts": ["a cat"], "every_epochs": None, "every_steps": every, "steps": 2, "cfg": 1} if every else {}
        events: list = []
        trained(job, name, events.append, sample=sample, train={"compile": "default"})
        assert any(isinstance(event, SampleReady) for event in events) == bool(every)
        runs.append(sum(traced) - before)
    assert runs[0] == runs[1] > 3


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"memory": {"weights": "int8"}}, "memory.weights"),
        ({"method": {"rank": 4, "module_dropout": 0.1}}, "method.module_dropout"),
        ({"method": {"rank": 4, "adapter": "dylora"}}, "DyLoRA"),
    ],
)
def test_what_speaks_against_it_is_said(job, sections, reason):
    assert reason in compiled.reason_against(job(train={"compile": "default"}, **sections))


def test_a_machine_that_cannot_compile_trains_all_the_same(job, monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler is installed")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    events = []
    found = trained(job, "broken", events.append, train={"compile": "reduce-overhead"})
    (warning,) = [event.text for event in events if isinstance(event, Warned) and "compile" in event.text]
    assert warning.startswith("train.compile: not taken, for torch.compile does not work here (") and "no compiler" in warning
    assert tiny.differing(found, trained(job, "plain")) == []


@pytest.mark.slow
def test_compiled_kernels_agree_within_rounding(job):
    """With the C++ compiler of this machine; a bound for sums in another order, in float32."""
    plain, found = trained(job, "plain"), trained(job, "compiled", train={"compile": "default"})
    assert plain.keys() == found.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


def test_unknown_modes_are_refused(job):
    from trainer.errors import ConfigError

    with pytest.raises(ConfigError, match="train.compile"):
        from_dict(job().model_dump() | {"train": {"compile": "max"}})
