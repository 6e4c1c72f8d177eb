"""What a training changes and what it leaves alone, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from trainer import loop, train
from trainer.config import AdapterSection, OptimizerSection, to_yaml
from trainer.errors import NonFiniteLoss
from trainer.events import Saved, StepDone, Warned
from trainer.families.sd import StableDiffusion
from trainer.feed import Batch
from trainer.methods import METHODS
from trainer.objective import batch_loss

ROOT = Path(__file__).parents[1]
FRESH = """
import sys
from trainer import train
from trainer.config import load
for path in sys.argv[1:]:
    train(load(path))
"""


def trained(config, **options) -> dict[str, torch.Tensor]:
    """The tensors of the file that a whole training leaves."""
    return tiny.tensors_of(train(config, **options).artefact)


def test_thirty_steps_on_one_picture_lower_the_loss_by_a_third(base):
    """The noise is fixed, so only the adapter can lower the loss. Measured: 1.22 to 0.18."""
    family, model = tiny.load_model(base)
    method = METHODS["adapter"](AdapterSection(rank=8, alpha=8), OptimizerSection())
    method.attach(family, model, seed=1)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    batch = Batch(("picture",), ["a cat"], latents, None, None, (7,))
    optimizer = torch.optim.AdamW([p for group in method.groups() for p in group.parameters], lr=1e-2)
    losses = []
    for _ in range(30):
        method.before_forward()
        loss = batch_loss(family, model, batch).sum()
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] * 2 / 3
    method.detach()
    with torch.no_grad():
        assert float(batch_loss(family, model, batch)) == losses[0]


def test_the_base_is_bitwise_unchanged_and_gets_no_gradient(job, monkeypatch):
    loaded = []

    def remember(self, *arguments):
        loaded.append(load(self, *arguments))
        parts = {"unet": loaded[0].unet, **loaded[0].text_encoders, "vae": loaded[0].vae}
        loaded.append(parts)
        loaded.append({name: {key: tensor.clone() for key, tensor in part.state_dict().items()} for name, part in parts.items()})
        return loaded[0]

    load = StableDiffusion.load
    monkeypatch.setattr(StableDiffusion, "load", remember)
    assert any(tensor.any() for name, tensor in trained(job()).items() if "lora_up" in name)
    _, parts, before = loaded
    for name, part in parts.items():
        assert tiny.differing(before[name], part.state_dict()) == []
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in part.parameters())
        assert not any("forward" in vars(module) for module in part.modules())  # the adapters are off again


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_host_that_computes_no_gradients_gets_the_same_lora(job, mode):
    expected = tiny.tensors_of(train(job()).artefact)
    with mode():
        found = train(job(save={"name": "inside"})).artefact
        assert not torch.is_grad_enabled()
    assert tiny.differing(expected, tiny.tensors_of(found)) == []


def test_learning_rates_of_the_parts_act_apart(job):
    events = []
    rates = {"lr": 1e-2, "unet_lr": 0.0, "text_encoder_lr": 2e-2}
    tensors = trained(job(optimizer=rates), listen=events.append)
    ups = {name: bool(tensor.any()) for name, tensor in tensors.items() if name.endswith("lora_up.weight")}
    assert {moved for name, moved in ups.items() if name.startswith("lora_unet_")} == {False}
    assert {moved for name, moved in ups.items() if name.startswith("lora_te_")} == {True}
    assert all(event.lr == {"text_encoder": 2e-2, "unet": 0.0} for event in events if isinstance(event, StepDone))
    unets = sum(name.startswith("lora_unet_") for name in ups)
    assert [event.text for event in events if isinstance(event, Warned) and f"{unets} layers have learned nothing" in event.text]


@pytest.mark.parametrize(("setting", "kept"), [("train_unet", "lora_te_"), ("train_text_encoder", "lora_unet_")])
def test_a_part_that_is_off_is_neither_trained_nor_saved(job, setting, kept):
    tensors = trained(job(method={"rank": 4, setting: False}))
    assert tensors and all(name.startswith(kept) for name in tensors)
    assert all(tensor.any() for tensor in tensors.values())


def test_gradient_checkpointing_recomputes_and_changes_no_number(job, monkeypatch):
    calls = []
    from trainer.adapters.lora import Lora

    add = Lora.add
    monkeypatch.setattr(Lora, "add", lambda *arguments: calls.append(1) or add(*arguments))
    options = {"steps": 3, "precision": "bf16", "device": "cpu"}
    plain = trained(job(train=options, save={"name": "plain", "dtype": "fp32"}))
    direct, calls[:] = len(calls), []
    saving = trained(job(train={**options, "gradient_checkpointing": True}, save={"name": "saving", "dtype": "fp32"}))
    assert len(calls) > 1.5 * direct
    assert tiny.differing(plain, saving) == []


def test_an_accumulated_step_follows_the_mean_over_all_its_samples(job, monkeypatch):
    """Also where its batches have different sizes; gradient descent at rate 1 moves by exactly the gradient."""
    batches = []
    monkeypatch.setattr(loop, "batch_loss", lambda *given: batches.append(given[2]) or batch_loss(*given))
    settings = {"steps": 1, "precision": "fp32", "device": "cpu", "gradient_accumulation": 3}
    config = job(train=settings, optimizer={"kind": "sgd", "lr": 1.0, "max_grad_norm": 0})
    result = train(config)
    assert sorted(len(batch.files) for batch in batches) == [1, 2, 2]

    family, model = tiny.load_model(Path(config.base.checkpoint))
    method = METHODS["adapter"](config.method, config.optimizer)
    method.attach(family, model, config.train.seed)
    method.before_forward()
    loss = torch.cat([batch_loss(family, model, batch) for batch in batches]).mean()
    loss.backward()
    assert result.losses == (pytest.approx(float(loss.detach()), rel=1e-5),)
    moved = tiny.tensors_of(result.artefact)
    torch.optim.SGD([parameter for group in method.groups() for parameter in group.parameters], lr=1.0).step()
    for name, tensor in method.state().items():
        torch.testing.assert_close(moved[name], tensor, rtol=1e-4, atol=1e-6)


def test_two_precisions_in_one_process_equal_two_fresh_processes(job, tmp_path):
    def config(place: str, precision: str):
        return job(
            train={"steps": 3, "precision": precision, "device": "cpu"},
            save={"dir": str(tmp_path / place), "name": precision, "dtype": "fp32"},
        )

    precisions = ("bf16", "fp32")
    children = []
    for precision in precisions:
        path = tmp_path / f"{precision}.yaml"
        path.write_text(to_yaml(config("fresh", precision)))
        children.append(subprocess.Popen([sys.executable, "-c", FRESH, str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True))
    here = {precision: trained(config("here", precision)) for precision in precisions}
    for precision, child in zip(precisions, children, strict=True):
        _, errors = child.communicate(timeout=300)
        assert child.returncode == 0, errors
        assert tiny.differing(here[precision], tiny.tensors_of(tmp_path / "fresh" / f"{precision}.safetensors")) == []
    assert tiny.differing(here["bf16"], here["fp32"])


def test_fp16_trains_with_scaled_losses(job):
    """The scale is taken out again: the result is near that of float32."""
    settings = {"steps": 2, "device": "cpu"}
    runs = [
        trained(
            job(train={**settings, "precision": precision}, optimizer={"kind": "sgd", "lr": 1.0}, save={"name": precision, "dtype": "fp32"})
        )
        for precision in ("fp32", "fp16")
    ]
    ups = [torch.cat([tensor.flatten() for name, tensor in run.items() if "lora_up" in name]) for run in runs]
    assert torch.isfinite(ups[1]).all()
    assert float((ups[0] - ups[1]).norm() / ups[0].norm()) < 0.05


def test_a_nan_loss_ends_the_run_before_the_optimizer_step(job, monkeypatch, tmp_path):
    settings = {"steps": 6, "precision": "fp32", "device": "cpu", "gradient_accumulation": 2}
    seen = []

    def poisoned(family, model, batch, objective):
        loss = batch_loss(family, model, batch, objective)
        seen.append(batch.files)
        return loss * float("nan") if len(seen) == 7 else loss

    monkeypatch.setattr(loop, "batch_loss", poisoned)
    events = []
    dataset = {**job().dataset.model_dump(mode="json"), "batch_size": 1}
    with pytest.raises(NonFiniteLoss) as caught:
        train(job(train=settings, dataset=dataset, save={"name": "bad", "dtype": "fp32"}), listen=events.append)
    steps = [event.step for event in events if isinstance(event, StepDone)]
    failed = len(steps) + 1
    assert steps == list(range(1, failed)) and f"the loss is nan at step {failed}" in str(caught.value)
    assert seen[6][0] in str(caught.value)

    monkeypatch.setattr(loop, "batch_loss", batch_loss)
    good = [event.path for event in events if isinstance(event, Saved) and event.kind == "lora"]
    assert [path.name for path in good] == [f"bad-step{failed - 1:08d}.safetensors"]
    shorter = trained(job(train={**settings, "steps": failed - 1}, dataset=dataset, save={"name": "good", "dtype": "fp32"}))
    assert tiny.differing(tiny.tensors_of(good[0]), shorter) == []
    saved = torch.load(tmp_path / "out" / "bad" / "state.pt", weights_only=True)
    assert saved["step"] == failed - 1
    assert tiny.differing(saved["tensors"], {name: tensor for name, tensor in shorter.items() if not name.endswith("alpha")}) == []


class _Overflow(torch.autograd.Function):
    """A loss that is finite with a gradient that is not."""

    @staticmethod
    def forward(_ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(_ctx, gradient):
        return gradient * float("inf")


@pytest.mark.parametrize("every", [1, None], ids=["found when saving", "found by the next loss"])
def test_weights_that_are_no_numbers_any_more_are_never_saved(job, monkeypatch, tmp_path, every):
    seen = []

    def overflowing(*arguments):
        seen.append(1)
        loss = batch_loss(*arguments)
        return _Overflow.apply(loss) if len(seen) == 3 else loss

    monkeypatch.setattr(loop, "batch_loss", overflowing)
    save = {"every_steps": every, "every_minutes": None, "every_epochs": None, "dtype": "fp32"}
    events = []
    with pytest.raises(NonFiniteLoss, match="after step 3, .* tensors hold numbers that are not finite.* with --resume"):
        train(job(save=save), listen=events.append)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files == (["tiny-step00000001.safetensors", "tiny-step00000002.safetensors"] if every else [])
    for path in files:
        assert all(torch.isfinite(tensor).all() for tensor in tiny.tensors_of(tmp_path / "out" / path).values())
    state = tmp_path / "out" / "tiny" / "state.pt"
    assert (torch.load(state, weights_only=True)["step"] if every else state.exists()) == (2 if every else False)


def test_a_nan_in_the_first_step_leaves_no_file(job, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "batch_loss", lambda *arguments: batch_loss(*arguments) * float("inf"))
    with pytest.raises(NonFiniteLoss, match="the loss is inf at step 1"):
        train(job())
    assert list((tmp_path / "out").glob("*.safetensors")) == []


def test_gradients_are_clipped_to_the_length_asked_for(job):
    """With plain gradient descent at rate 1, the first step moves all trained numbers by exactly that length."""
    config = job(optimizer={"kind": "sgd", "lr": 1.0, "max_grad_norm": 1e-3}, train={"steps": 1, "precision": "fp32", "device": "cpu"})
    method = METHODS["adapter"](config.method, config.optimizer)
    family, model = tiny.load_model(Path(config.base.checkpoint))
    method.attach(family, model, config.train.seed)
    start, end = method.state(), trained(config)
    moved = torch.cat([(end[name] - tensor).double().flatten() for name, tensor in start.items()])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_the_log_holds_every_event_as_json(job, tmp_path):
    events = []
    result = train(job(), listen=events.append)
    lines = [json.loads(line) for line in (tmp_path / "out" / "tiny" / "log.jsonl").read_text().splitlines()]
    logged = [line["event"] for line in lines]
    told = [type(event).__name__ for event in events]
    assert logged == told[told.index("DatasetScanned") :]  # before it, it is not known how much of an older log to keep
    assert logged[-1] == "Finished"
    assert [line["loss"] for line in lines if line["event"] == "StepDone"] == list(result.losses)
    assert (result.run_dir / "loss.png").exists()
