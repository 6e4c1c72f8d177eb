"""torch.compile as an option: the same result, and a reason where it is not taken."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import tiny
import torch

from trainer import compiled, train
from trainer.config import from_dict
from trainer.errors import ConfigError
from trainer.events import SampleReady, StepDone, Warned

STEPS = {"steps": 3, "precision": "fp32", "device": "cpu"}
COMPILE = {"compile": "default"}


def trained(job, name: str, listen=lambda _: None, **sections) -> dict[str, torch.Tensor]:
    options = STEPS | sections.pop("train", {})
    return tiny.tensors_of(train(job(train=options, save={"name": name, "dtype": "fp32"}, **sections), listen=listen).artefact)


def said(events: list) -> list[str]:
    """What the log says of train.compile."""
    return [event.text for event in events if isinstance(event, Warned) and "compile" in event.text]


def skip_without_a_compiler(*reasons: str | None) -> None:
    """Skips where torch.compile lacks a C++ compiler, or Python's headers."""
    for reason in reasons:
        if reason and "torch.compile does not work here" in reason:
            pytest.skip(reason)


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
def test_the_traced_network_gives_the_same_bits(job, traced, monkeypatch, sections):
    """Where its upsamplers interpolate, that is: repeating adds up their gradient in another order."""
    monkeypatch.setattr(compiled, "_repeating", nullcontext)
    plain = trained(job, "plain", **sections)
    assert not traced
    events = []
    found = trained(job, "traced", events.append, **sections | {"train": sections.get("train", {}) | COMPILE})
    assert said(events) == []
    assert sum(traced) >= 4, "beside the comparison, each step ran at least one graph"
    assert tiny.differing(plain, found) == []


def test_samples_go_without(job, traced):
    """Each size and each guidance would be compiled anew."""
    runs: dict[type, list[int]] = {StepDone: [], SampleReady: []}
    sample = {"prompts": ["a cat"], "every_epochs": None, "every_steps": 1, "steps": 2, "cfg": 1}
    trained(job, "samples", lambda event: runs.get(type(event), []).append(sum(traced)), sample=sample, train=COMPILE)
    assert runs[SampleReady][-3:] == runs[StepDone] and runs[StepDone] == sorted(set(runs[StepDone]))


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"memory": {"weights": "int8"}}, "memory.weights"),
        ({"method": {"rank": 4, "module_dropout": 0.1}}, "method.module_dropout"),
        ({"method": {"rank": 4, "adapter": "dylora"}}, "DyLoRA"),
    ],
)
def test_what_speaks_against_it_is_said(job, sections, reason):
    assert reason in compiled.reason_against(job(train=COMPILE, **sections))


def test_a_machine_that_cannot_compile_trains_all_the_same(job, monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler is installed")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    events = []
    found = trained(job, "broken", events.append, train=COMPILE)
    (warning,) = said(events)
    assert warning.startswith("train.compile: not taken: torch.compile does not work here (") and "no compiler" in warning
    assert tiny.differing(found, trained(job, "plain")) == []


def test_a_compiler_that_loses_gradients_is_found_out(job, monkeypatch):
    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]):
        return lambda *arguments: [output.detach() + 0 * output for output in graph.forward(*arguments)]

    monkeypatch.setattr(compiled, "BACKEND", backend)
    events = []
    found = trained(job, "compiled", events.append, train=COMPILE)
    up = [name for name in found if name.endswith("lora_up.weight")]  # before the first step their gradients alone are not zero
    wrong = f"{len(up)} of {2 * len(up)} tensors are up to 100.0% off (allowed 0.14%)"
    assert said(events) == [f"train.compile: not taken: compiled for a batch of 2×4×8×8, gradients of {wrong}"]
    assert tiny.differing(found, trained(job, "plain")) == []


@pytest.mark.parametrize(
    ("dtype", "right", "wrong"), [(torch.float32, 1.0013, 1.0014), (torch.bfloat16, 0.65, 0.64), (torch.float16, 1.12, 1.13)]
)
def test_each_tensor_has_to_agree(monkeypatch, dtype, right, wrong):
    """Also one that is small beside the others, but not one that is nothing beside them."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    large, small, none = torch.full((300,), 10.0), torch.full((3,), 1e-3), torch.full((2,), 1e-9)
    for factor in (right, wrong):
        answers = iter([[large, small, none], [large, small * factor, -none]])
        model = SimpleNamespace(unet=torch.nn.Linear(2, 2), dtype=dtype)
        compilation = compiled.Compilation(model, "default")  # type: ignore[arg-type]
        reason = compilation.compare(torch.Size([2]), lambda answers=answers: next(answers))
        assert (reason is None) == (factor == right), reason
        assert reason is None or "1 of 3 tensors" in reason
        with compilation.on():
            assert isinstance(model.unet, torch.nn.Linear) == (factor == wrong)


def test_what_overflows_is_compared_the_next_time(monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    model = SimpleNamespace(unet=torch.nn.Linear(2, 2), dtype=torch.float16)
    compilation = compiled.Compilation(model, "default")  # type: ignore[arg-type]
    shape = torch.Size([1])
    assert compilation.compare(shape, lambda: [torch.tensor([torch.inf])]) is None and compilation.to_compare(shape)
    assert compilation.compare(shape, lambda: [torch.ones(1)]) is None and not compilation.to_compare(shape)


def test_each_shape_of_a_batch_is_compared_once(job, traced, tmp_path, monkeypatch):
    shapes = []
    compare = compiled.Compilation.compare
    monkeypatch.setattr(compiled.Compilation, "compare", lambda self, shape, found: shapes.append(shape) or compare(self, shape, found))
    pictures = tiny.write_pictures(tmp_path / "two shapes", sizes=[(64, 64)] * 3 + [(96, 32)] * 2)
    dataset = {"folders": [{"path": str(pictures)}], "batch_size": 1}
    trained(job, "shapes", dataset=dataset, train={"steps": 10} | COMPILE)
    assert sorted(shapes) == sorted(set(shapes)) and len(shapes) == 2


def test_graphs_of_a_gpu_are_for_a_gpu(job):
    model = SimpleNamespace(unet=torch.nn.Linear(2, 2), device=torch.device("cpu"))
    _, said = compiled.prepare(model, job(train={"compile": "reduce-overhead"}))  # type: ignore[arg-type]
    assert said == "train.compile: compiled without CUDA graphs, for the device is cpu"


def test_gradients_of_an_upsampled_sum():
    """torch 2.13 loses this one where the upsampler interpolates."""
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.upsampling import Upsample2D

    torch.manual_seed(0)
    resnet = ResnetBlock2D(in_channels=32, out_channels=16, temb_channels=8, groups=4).requires_grad_(False)
    upsample = Upsample2D(16, use_conv=True, out_channels=16).requires_grad_(False)
    start, time, weight = torch.randn(2, 32, 4, 4), torch.randn(2, 8), torch.randn(2, 16, 8, 8)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.resnet, self.upsample = resnet, upsample

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.upsample(self.resnet(x, time))

    model = SimpleNamespace(unet=Network(), dtype=torch.float32)

    def gradients() -> list[torch.Tensor]:
        x = start.clone().requires_grad_(True)
        (model.unet(x) * weight).sum().backward()
        return [] if x.grad is None else [x.grad]

    compilation = compiled.Compilation(model, "default")  # type: ignore[arg-type]
    skip_without_a_compiler(reason := compilation.compare(start.shape, gradients))
    assert reason is None
    assert upsample.interpolate and not upsample._forward_pre_hooks


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 7), (7, 7)])
def test_repeating_is_interpolation_by_the_nearest_pixel(size):
    x = torch.randn(2, 3, 4, 4)
    repeated, *_ = compiled._repeat(torch.nn.Identity(), (x, size))
    assert torch.equal(repeated, torch.nn.functional.interpolate(x, size=size, mode="nearest"))


@pytest.mark.slow
def test_compiled_kernels_agree_within_rounding(job):
    """With the C++ compiler of this machine, in float32; by SGD, for Adam makes whole steps of rounding errors."""
    sections = {"optimizer": {"kind": "sgd", "lr": 1.0}}
    events = []
    plain, found = trained(job, "plain", **sections), trained(job, "compiled", events.append, train=COMPILE, **sections)
    skip_without_a_compiler(*said(events))
    assert said(events) == []
    assert plain.keys() == found.keys()
    assert tiny.differing(plain, found), "other kernels round otherwise"
    for name, tensor in plain.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


def test_unknown_modes_are_refused(job):
    with pytest.raises(ConfigError, match="train.compile"):
        from_dict(job().model_dump() | {"train": {"compile": "max"}})
