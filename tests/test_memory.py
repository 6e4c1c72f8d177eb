"""Memory that does not suffice, at every stage: the run goes on, or stops with everything saved and says what needs less."""

from __future__ import annotations

import gc
import weakref

import pytest
import tiny
import torch

from trainer import loop, periodic, train
from trainer.cheaper import advice
from trainer.errors import OutOfMemory, forget_frames
from trainer.events import Saved, StepDone, Warned
from trainer.families.sd import StableDiffusion
from trainer.memory import is_out_of_memory, with_room
from trainer.methods.adapter import AdapterMethod
from trainer.objective import batch_loss
from trainer.precision import LossScaler

CPU = torch.device("cpu")
SAMPLED = {"prompts": ["a"], "steps": 1, "size": 64, "every_epochs": None, "every_steps": 2}
EVERY_STEP = {"name": "tiny", "dtype": "fp32", "every_epochs": None, "every_steps": 1}


def error() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 1 GiB")


class Failing:
    """Takes the place of a function and raises at some of its calls (from 1)."""

    def __init__(self, monkeypatch, owner, name: str, calls):
        self.plain, self.calls, self.count, self.seen = getattr(owner, name), calls, 0, []
        failing = self
        monkeypatch.setattr(owner, name, lambda *arguments, **more: failing(*arguments, **more))

    def __call__(self, *arguments, **more):
        self.count += 1
        self.seen.append(arguments)
        if self.count in self.calls:
            raise error()
        return self.plain(*arguments, **more)


def real_error() -> Exception:
    try:
        torch.empty(2**58)
    except RuntimeError as found:
        return found
    raise AssertionError("this machine has too much memory")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (error(), True),
        (real_error(), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_every_library_says_it_in_its_own_way(found, expected):
    assert is_out_of_memory(found) is expected


def test_work_is_tried_again_once_there_is_room():
    attempts = []

    def work():
        attempts.append(1)
        if len(attempts) == 1:
            raise error()
        return "done"

    assert with_room(work, CPU, "working") == "done"
    with pytest.raises(OutOfMemory, match="out of memory while working: CUDA out of memory. Tried to allocate 2.00 GiB.$"):
        with_room(lambda: (_ for _ in ()).throw(error()), CPU, "working")
    with pytest.raises(KeyError):
        with_room(lambda: {}["x"], CPU, "working")


def told(events) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned) and "out of memory" in event.text]


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("times", [1, 2])
def test_the_cheap_measures_change_no_bit(job, monkeypatch, step, times):
    whole = train(job(save={"name": "whole", "dtype": "fp32"}))
    Failing(monkeypatch, loop, "batch_loss", range(step, step + times))
    events = []
    result = train(job(), listen=events.append)
    assert len(told(events)) == times and f"out of memory at step {step}" in told(events)[0]
    assert ("gradient checkpointing" in told(events)[-1]) == (times == 2)
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3, 4]
    assert result.losses == whole.losses
    assert tiny.differing(tiny.tensors_of(whole.artefact), tiny.tensors_of(result.artefact)) == []


def test_smaller_portions_of_the_same_batch(job, monkeypatch):
    """One batch of 5 each step: the third measure lets 3 pictures through at a time, the fourth 2."""
    section = {"dataset": {**job().dataset.model_dump(mode="json"), "batch_size": 5, "buckets": {"enabled": False}}}
    whole = train(job(save={"name": "whole", "dtype": "fp32"}, **section))
    failing = Failing(monkeypatch, loop, "batch_loss", {1, 2, 3, 5})
    events = []
    result = train(job(**section), listen=events.append)
    assert [text.split(": ", 1)[1][:35] for text in told(events)] == [
        "once more after cached memory was g",
        "on with gradient checkpointing (tra",
        "on with 3 of a batch's pictures at ",
        "on with 2 of a batch's pictures at ",
    ]
    sizes = [len(arguments[2].files) for arguments in failing.seen]
    assert sizes == [5, 5, 5, 3, 2] + [2, 2, 1] * 4
    assert result.losses == pytest.approx(whole.losses, rel=1e-5)
    first, second = tiny.tensors_of(whole.artefact), tiny.tensors_of(result.artefact)
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4


@pytest.mark.parametrize("dora", [False, True])
def test_portions_drop_what_the_whole_batch_drops(job, dora):
    section = {"dataset": {**job().dataset.model_dump(mode="json"), "batch_size": 4, "buckets": {"enabled": False}}}
    section["method"] = {"rank": 4, "dropout": 0.3, "rank_dropout": 0.3, "module_dropout": 0.3, "dora": dora}
    section["optimizer"] = {"kind": "sgd", "lr": 0.5}  # AdamW makes as much of a rounding error as of a gradient
    whole = train(job(save={"name": "whole", "dtype": "fp32"}, **section))
    for size in (1, 3):
        parts = train(job(save={"name": f"by {size}", "dtype": "fp32"}, memory={"micro_batch": size}, **section))
        assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
        first, second = tiny.tensors_of(whole.artefact), tiny.tensors_of(parts.artefact)
        assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5


def test_a_setting_starts_with_small_portions(job):
    section = {"dataset": {**job().dataset.model_dump(mode="json"), "batch_size": 4, "buckets": {"enabled": False}}}
    whole = train(job(save={"name": "whole", "dtype": "fp32"}, **section))
    parts = train(job(memory={"micro_batch": 3}, **section))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5) and parts.losses != whole.losses


@pytest.mark.parametrize("size", [1, 2, 3])
def test_portions_give_the_gradients_of_the_batch(base, size):
    """Five samples with unequal weights and masks; the sum of the portions' gradients is that of the whole."""
    from trainer.feed import Batch

    family, model = tiny.load_model(base)
    generator = torch.Generator().manual_seed(3)
    batch = Batch(
        files=tuple("abcde"),
        captions=["a red dog"] * 5,
        latents=torch.randn(5, 4, 8, 8, generator=generator),
        pixels=None,
        conditioning={"context": torch.randn(5, 77, 32, generator=generator)},
        seeds=(1, 2, 3, 4, 5),
        masks=torch.rand(5, 1, 8, 8, generator=generator),
        weights=(1.0, 0.5, 2.0, 1.0, 0.1),
        sizes=torch.ones(5, 6),
    )
    pieces = batch.pieces(size)
    assert [len(piece.files) for piece in pieces] == [size] * (5 // size) + ([5 % size] if 5 % size else [])
    assert batch.pieces(None) == [batch] and batch.pieces(5) == [batch]
    weight = model.unet.conv_in.weight.requires_grad_(True)
    found = []
    for parts in ([batch], pieces):
        weight.grad, total = None, 0.0
        for part in parts:
            loss = batch_loss(family, model, part).sum() / 5
            loss.backward()
            total += float(loss.detach())
        found.append((total, weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


def test_when_nothing_helps_the_work_is_saved_and_goes_on_elsewhere(job, monkeypatch, tmp_path):
    whole = train(job(save={"name": "whole", "dtype": "fp32"}))
    Failing(monkeypatch, loop, "batch_loss", range(3, 100))
    with pytest.raises(OutOfMemory) as caught:
        train(job())
    text = str(caught.value)
    assert "out of memory at step 3" in text and "2 steps are saved" in text and "What needs less:" in text
    assert "memory.micro_batch=1" in text and "dataset.resolution" in text
    monkeypatch.undo()
    assert torch.load(tmp_path / "out" / "tiny" / "state.pt", weights_only=True)["step"] == 2
    events = []
    result = train(job(), resume=True, listen=events.append)
    assert [event.step for event in events if isinstance(event, StepDone)] == [3, 4]
    assert any("memory was short before: on with gradient checkpointing, 1 pictures" in e.text for e in events if isinstance(e, Warned))
    assert result.losses == pytest.approx(whole.losses, rel=1e-5)


def test_an_update_that_does_not_fit_is_not_saved(job, monkeypatch, tmp_path):
    Failing(monkeypatch, LossScaler, "step", {3})
    with pytest.raises(OutOfMemory, match="continue from step 2"):
        train(job(save=EVERY_STEP))
    monkeypatch.undo()
    whole = train(job(save={"name": "whole", "dtype": "fp32"}))
    result = train(job(save=EVERY_STEP), resume=True)
    assert result.losses == whole.losses


STAGES = {
    "encoding pictures": (StableDiffusion, "encode_images", 2),
    "encoding captions": (StableDiffusion, "encode_text", 2),
    "the first step": (loop, "batch_loss", 1),
    "drawing": (periodic, "draw", 1),
    "measuring": (periodic, "validation_loss", 1),
    "saving the state": (AdapterMethod, "state", 1),
    "saving the LoRA": (AdapterMethod, "artefact", 1),
}


def staged(job):
    plain = job().dataset.model_dump(mode="json")
    return job(sample=SAMPLED, save=EVERY_STEP, validate={"split": 0.2}, dataset=plain, method={"train_text_encoder": False})


@pytest.mark.parametrize("stage", STAGES)
def test_once_at_every_stage(job, monkeypatch, stage):
    owner, name, call = STAGES[stage]
    failing = Failing(monkeypatch, owner, name, {call})
    result = train(staged(job))
    assert failing.count > call
    assert (result.status, result.steps, len(result.files), len(result.samples)) == ("done", 4, 4, 2)
    assert result.validation[0][0] == 0 and result.validation[-1][0] == 4


@pytest.mark.parametrize("stage", ["encoding pictures", "encoding captions"])
def test_what_was_encoded_is_kept(job, monkeypatch, tmp_path, stage):
    owner, name, call = STAGES[stage]
    Failing(monkeypatch, owner, name, range(call, 100))
    with pytest.raises(OutOfMemory, match=f"{stage[:8]}.*(picture|caption).*What needs less"):
        train(staged(job))
    assert len(list((tmp_path / "out" / ".lora_furnace_cache").rglob("*.safetensors"))) >= call - 1


@pytest.mark.parametrize("stage", ["drawing", "measuring"])
def test_a_look_at_the_run_never_ends_it(job, monkeypatch, stage):
    owner, name, _ = STAGES[stage]
    Failing(monkeypatch, owner, name, range(1, 100))
    events = []
    assert train(staged(job), listen=events.append).status == "done"
    assert [text for text in told(events) if stage in text]


def test_a_save_that_does_not_fit_keeps_the_one_before(job, monkeypatch, tmp_path):
    Failing(monkeypatch, AdapterMethod, "state", range(2, 100))
    events = []
    with pytest.raises(OutOfMemory, match="saving"):
        train(job(save=EVERY_STEP), listen=events.append)
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3, 4]
    assert torch.load(tmp_path / "out" / "tiny" / "state.pt", weights_only=True)["step"] == 1
    assert [event.step for event in events if isinstance(event, Saved) and event.kind == "lora"] == [1, 2, 3, 4]


def test_loading_that_does_not_fit_says_what_needs_less(job, monkeypatch):
    from trainer import run

    Failing(monkeypatch, run, "load_base", range(1, 100))
    with pytest.raises(OutOfMemory, match="CUDA out of memory.*What needs less"):
        train(job())


def test_an_error_that_is_kept_keeps_no_model(job, monkeypatch):
    from trainer import run

    models, load = [], run.load_base

    def loaded(*arguments, **options):
        model = load(*arguments, **options)
        models.append(weakref.ref(model.unet))
        return model

    monkeypatch.setattr(run, "load_base", loaded)
    Failing(monkeypatch, loop, "batch_loss", range(1, 100)).seen = None  # it would keep what it was called with
    monkeypatch.setattr(loop, "batch_loss", lambda *_: (_ for _ in ()).throw(error()))
    with pytest.raises(OutOfMemory) as caught:
        train(job())
    forget_frames(caught.value)
    gc.collect()
    assert [model() for model in models] == [None], caught.value


def test_advice_leaves_out_what_is_set(job):
    gpu = torch.device("cuda")
    assert advice(job(), gpu) == (
        "What needs less: train.gradient_checkpointing=true, memory.micro_batch=1, method.train_text_encoder=false, memory.weights=int8, "
        "memory.weights=nf4, memory.offload=0.8, a smaller dataset.resolution, fewer other programs on the same device"
    )
    section = {"train": {"gradient_checkpointing": True}, "memory": {"micro_batch": 1, "weights": "nf4"}}
    assert advice(job(**section), CPU).startswith("What needs less: method.train_text_encoder=false, a smaller dataset.resolution")


def test_the_model_is_given_back_before_train_returns(job, monkeypatch):
    """Not by chance some time later: its memory is wanted at once by the next program of the process."""
    plain, networks = StableDiffusion.load, []

    def load(*arguments):
        model = plain(*arguments)
        networks.append(weakref.ref(model.unet))
        return model

    def fail(event):
        if isinstance(event, StepDone):
            raise RuntimeError("the window was closed")

    monkeypatch.setattr(StableDiffusion, "load", load)
    gc.disable()
    try:
        assert train(job(sample=SAMPLED)).status == "done"
        assert [network() for network in networks] == [None]
        with pytest.raises(RuntimeError, match="the window was closed"):
            train(job(save={"name": "failed"}), listen=fail)
        assert [network() for network in networks] == [None, None]
    finally:
        gc.enable()
