"""Each option of training an adapter acts, in whole runs on a tiny model."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from trainer import train
from trainer.errors import ConfigError, ModelFileError
from trainer.events import Removed, Saved, StepDone, Warned
from trainer.families.loading import load_base
from trainer.families.weights import open_weights

FP32 = {"precision": "fp32", "device": "cpu"}


def run(job, name: str, **sections):
    """The result, the tensors of its final file, and the events."""
    events = []
    result = train(job(**{**sections, "save": {"name": name, "dtype": "fp32", **sections.get("save", {})}}), listen=events.append)
    return result, tiny.tensors_of(result.artefact), events


def warnings(events) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize("setting", ["dropout", "rank_dropout", "module_dropout"])
def test_dropout_changes_the_training_and_not_the_validation(job, setting):
    held = {"split": 0.2, "every_epochs": None}
    still = {"optimizer": {"lr": 0.0}, "validate": held}
    plain, _, _ = run(job, "plain", **still)
    dropped, tensors, _ = run(job, "dropped", **still, method={"rank": 4, setting: 0.5})
    assert dropped.validation == plain.validation
    assert all(bool(tensor.any()) for name, tensor in tensors.items() if "lora_down" in name)
    learned, first, _ = run(job, "learned", method={"rank": 4, setting: 0.5})
    _, again, _ = run(job, "again", method={"rank": 4, setting: 0.5})
    _, other, _ = run(job, "other")
    assert tiny.differing(first, again) == [] and tiny.differing(first, other)
    assert learned.status == "done"


def test_max_norm_limits_every_change_and_is_reported(job):
    _, tensors, events = run(job, "limited", method={"rank": 4, "alpha": 4, "max_norm": 0.02})
    keys = {name.rsplit(".lora_", 1)[0] for name in tensors if ".lora_" in name}
    norms = [float((tensors[f"{key}.lora_up.weight"].flatten(1) @ tensors[f"{key}.lora_down.weight"].flatten(1)).norm()) for key in keys]
    assert max(norms) == pytest.approx(0.02, rel=1e-3) and all(norm <= 0.02 * 1.001 for norm in norms)
    limited = [event.limited for event in events if isinstance(event, StepDone)]
    assert limited[0] > 0 and all(isinstance(number, int) for number in limited)
    _, _, free = run(job, "free")
    assert {event.limited for event in free if isinstance(event, StepDone)} == {None}


def test_a_norm_that_the_saved_average_would_not_keep_is_refused(job):
    """With a limit of 0.05 the file's largest change was 0.53: the optimizer's own state is not scaled down."""
    averaging = {"kind": "adamw_schedulefree", "lr": 1e-3}
    with pytest.raises(ConfigError, match=r"method\.max_norm: 0\.05 would limit the weights that adamw_schedulefree trains"):
        train(job(method={"rank": 4, "max_norm": 0.05}, optimizer=averaging, schedule={"kind": "constant"}))


def test_lora_plus_raises_the_up_matrices_alone(job):
    """One step of gradient descent moves by rate times gradient, and only up matrices have a gradient then."""
    settings = {"train": {**FP32, "steps": 1}, "optimizer": {"kind": "sgd", "lr": 0.01, "max_grad_norm": 0}}
    _, plain, _ = run(job, "plain", **settings)
    plus = {**settings["optimizer"], "lora_plus": 16}
    _, raised, events = run(job, "plus", train=settings["train"], optimizer=plus)
    for name, tensor in plain.items():
        torch.testing.assert_close(raised[name], tensor * (16 if "lora_up" in name else 1), rtol=1e-4, atol=1e-7)
    (step,) = [event for event in events if isinstance(event, StepDone)]
    assert step.lr == {
        "text_encoder": 0.01,
        "text_encoder_up": pytest.approx(0.16),
        "unet": 0.01,
        "unet_up": pytest.approx(0.16),
    }
    with pytest.raises(ConfigError, match=r"optimizer\.lora_plus: 16 cannot act on loha, only on lora, dylora"):
        train(job(method={"adapter": "loha"}, optimizer={"lora_plus": 16}))


@pytest.mark.parametrize(("stop", "after"), [(2, 2), (0.5, 2)])
def test_the_text_encoder_stays_exactly_as_it_was_when_stopped(job, stop, after):
    adamw = {"optimizer": {"lr": 1e-2, "args": {"weight_decay": 0.1}}, "train": {**FP32, "steps": 4, "ema": 0.5}}
    saves = {"every_epochs": None, "every_steps": 1}
    result, last, _ = run(job, "stopped", **adamw, method={"rank": 4, "stop_text_encoder": stop}, save=saves)
    _, plain, _ = run(job, "plain", **adamw)
    at_stop = tiny.tensors_of(result.files[after - 1])
    text = {name for name in last if name.startswith("lora_te_")}
    assert text and all(torch.equal(last[name], at_stop[name]) for name in text)
    moved = [name for name in last if name.startswith("lora_unet_") and not torch.equal(last[name], at_stop[name])]
    assert moved and any(not torch.equal(plain[name], last[name]) for name in text)


def test_no_gradient_is_computed_for_a_stopped_text_encoder(job, monkeypatch):
    from trainer.families.sd import StableDiffusion

    encode, needed = StableDiffusion.encode_text, []

    def watched(self, model, captions):
        result = encode(self, model, captions)
        needed.append(any(tensor.requires_grad for tensor in result.values()))
        return result

    monkeypatch.setattr(StableDiffusion, "encode_text", watched)
    run(job, "stopped", method={"rank": 4, "stop_text_encoder": 2})
    assert needed[-4:] == [True, True, False, False]


def test_a_stop_that_cannot_act_is_said(job):
    _, _, events = run(job, "late", method={"rank": 4, "stop_text_encoder": 9})
    assert [text for text in warnings(events) if "method.stop_text_encoder: 9 has no effect, for there are 4 steps" in text]
    with pytest.raises(ConfigError, match="would leave nothing to train"):
        train(job(method={"train_unet": False, "stop_text_encoder": 2}))


def test_continuing_starts_where_the_file_ends(job):
    result, first, _ = run(job, "first")
    still = {"lr": 0.0}
    _, same, events = run(job, "same", method={"rank": 4, "alpha": 4, "continue_from": str(result.artefact)}, optimizer=still)
    assert tiny.differing(first, same) == [] and not [text for text in warnings(events) if "continue_from" in text]
    _, other, events = run(job, "other", method={"rank": 8, "alpha": 2, "continue_from": str(result.artefact)}, optimizer=still)
    assert tiny.differing(first, other) == []
    assert [text for text in warnings(events) if "stay as the file has them" in text and "lora of rank 4 and alpha 4" in text]


@pytest.mark.parametrize(
    ("method", "algorithm", "said"),
    [
        ({"adapter": "lokr"}, "lokr", False),
        ({"adapter": "lora", "dora": True}, "lora", True),
        ({"adapter": "loha", "tucker": True, "conv_rank": 2}, "loha", False),
    ],
)
def test_a_file_says_what_its_layers_are_where_the_settings_say_something_else(job, method, algorithm, said):
    result, _, _ = run(job, "first", method={"rank": 2, **method})
    convolutions = {"conv_rank": method.get("conv_rank")}
    again, _, _ = run(job, "again", method={"rank": 2, "continue_from": str(result.artefact), **convolutions})

    before, after = (open_weights(file).metadata for file in (result.artefact, again.artefact))
    assert after["ss_network_module"] == before["ss_network_module"] == "lycoris.kohya"
    arguments = json.loads(after["ss_network_args"])
    assert arguments["algo"] == algorithm and ("dora_wd" in arguments) is said
    assert arguments.get("use_tucker") == json.loads(before["ss_network_args"]).get("use_tucker")


def test_an_option_that_cannot_act_on_the_algorithm_is_refused(job):
    result, _, _ = run(job, "loha", method={"adapter": "loha", "rank": 2})
    for adapter in ("loha", "lora"):
        method = {"adapter": adapter, "rank_dropout": 0.1, "continue_from": str(result.artefact)}
        with pytest.raises(ConfigError, match=r"method\.rank_dropout: 0\.1 cannot act on loha, only on lora, dylora"):
            train(job(method=method, save={"name": adapter}))


def test_layers_that_the_file_lacks_start_fresh_and_unused_ones_are_said(job):
    unet, tensors, _ = run(job, "unet", method={"rank": 4, "alpha": 4, "train_text_encoder": False})
    _, both, _ = run(job, "both", method={"rank": 2, "alpha": 2, "continue_from": str(unet.artefact)}, optimizer={"lr": 0.0})
    assert all(torch.equal(both[name], tensor) for name, tensor in tensors.items())
    added = {name: tensor for name, tensor in both.items() if name.startswith("lora_te_") and "lora_up" in name}
    assert added and all(tensor.shape[1] == 2 and not tensor.any() for tensor in added.values())
    whole, _, _ = run(job, "whole")
    method = {"rank": 4, "alpha": 4, "train_text_encoder": False, "continue_from": str(whole.artefact)}
    _, _, events = run(job, "part", method=method)
    assert [text for text in warnings(events) if "belong to no layer that is trained" in text]


def test_a_file_of_another_model_is_refused(job, tmp_path):
    from safetensors.torch import save_file

    save_file({"elsewhere.lora_up.weight": torch.ones(2, 2)}, tmp_path / "foreign.safetensors")
    foreign = str(tmp_path / "foreign.safetensors")
    for sections in ({"method": {"continue_from": foreign}}, {"base": {"loras": [{"file": foreign}]}}):
        with pytest.raises(ModelFileError, match="fits no layer of this model"):
            train(job(**sections))
    with pytest.raises(ConfigError) as caught:
        train(job(method={"continue_from": "gone.safetensors"}, base={"loras": [{"file": "lost.safetensors"}]}))
    assert "method.continue_from: gone.safetensors is not a file" in str(caught.value)
    assert "base.loras.0.file: lost.safetensors is not a file" in str(caught.value)


def test_merged_loras_change_the_weights_by_exactly_their_share(job, base):
    result, tensors, _ = run(job, "first")
    family, plain = tiny.load_model(base)
    section = job(base={"loras": [{"file": str(result.artefact), "strength": 0.5}]}).base
    merged = load_base(family, section, torch.device("cpu"), torch.float32)
    targets = {target.key: target.module for target in family.adapter_targets(merged)}
    for target in family.adapter_targets(plain):
        if f"{target.key}.alpha" not in tensors:  # a convolution, which this file does not train
            assert torch.equal(targets[target.key].weight, target.module.weight)
            continue
        up, down = (tensors[f"{target.key}.lora_{name}.weight"].flatten(1) for name in ("up", "down"))
        change = 0.5 * (up @ down).reshape(target.module.weight.shape)
        torch.testing.assert_close(targets[target.key].weight, target.module.weight + change, rtol=1e-5, atol=1e-6)
    assert merged.identity["unet"] != plain.identity["unet"] and merged.identity["vae"] == plain.identity["vae"]
    assert merged.text_identity != plain.text_identity  # so cached captions of the plain model are not used
    assert not any("forward" in vars(module) for module in merged.unet.modules())


def test_only_the_newest_numbered_files_are_kept(job, tmp_path):
    (tmp_path / "out").mkdir()
    foreign = tmp_path / "out" / "other-000001.safetensors"
    foreign.write_bytes(b"a user's file")
    saves = {"every_epochs": None, "every_steps": 1, "keep_last": 2}
    result, _, events = run(job, "kept", save=saves, train={**FP32, "steps": 5})
    names = ["kept-step00000003.safetensors", "kept-step00000004.safetensors", "kept.safetensors"]
    assert [path.name for path in result.files] == names
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == sorted([*names, foreign.name])
    order = [type(event).__name__ for event in events if isinstance(event, Removed) or (isinstance(event, Saved) and event.kind == "lora")]
    assert order == ["Saved", "Saved", "Saved", "Removed", "Saved", "Removed", "Saved"]


def test_each_step_has_the_rate_of_its_place(job):
    """One step of warm-up at a half, then a line from the full rate that would be 0 one step after the last."""
    _, _, events = run(job, "line", schedule={"kind": "linear", "warmup": 1}, train={**FP32, "steps": 4}, optimizer={"lr": 0.01})
    rates = [rate for event in events if isinstance(event, StepDone) for rate in set(event.lr.values())]
    assert rates == pytest.approx([0.005, 0.01, 0.01 * 2 / 3, 0.01 / 3])


def test_the_average_is_made_of_the_weights_after_each_step(job):
    """Up matrices start at 0; then, at step t from 0, the average keeps (1 + t) / (10 + t) of itself."""
    every = {"every_epochs": None, "every_steps": 1}
    plain, _, _ = run(job, "plain", save=every, train={**FP32, "steps": 4})
    _, averaged, _ = run(job, "average", train={**FP32, "steps": 4, "ema": 0.999})
    steps = [tiny.tensors_of(file) for file in plain.files]
    assert len(steps) == 4
    for name in (name for name in averaged if "lora_up" in name):
        expected = torch.zeros_like(averaged[name])
        for t, tensors in enumerate(steps):
            kept = (1 + t) / (10 + t)
            expected = kept * expected + (1 - kept) * tensors[name]
        torch.testing.assert_close(averaged[name], expected)


def test_saved_and_validated_weights_are_the_average(job):
    held = {"split": 0.2, "every_epochs": None}
    settings = {"validate": held, "train": {**FP32, "steps": 3}}
    plain, _, _ = run(job, "plain", **settings)
    average, tensors, _ = run(job, "average", **{**settings, "train": {**FP32, "steps": 3, "ema": 0.999}})
    assert average.losses == plain.losses and average.validation[-1] != plain.validation[-1]
    state = torch.load(average.run_dir / "state.pt", weights_only=True)
    trained = state["tensors"]
    assert tiny.differing(trained, torch.load(plain.run_dir / "state.pt", weights_only=True)["tensors"]) == []
    assert all(not torch.equal(tensors[name], tensor) for name, tensor in trained.items() if "lora_up" in name)
    assert sorted(float(t.double().sum()) for t in state["averaging"]["average"]) == pytest.approx(
        sorted(float(tensors[name].double().sum()) for name in trained), rel=1e-9
    )


def test_the_curve_is_drawn_again_after_the_last_validation(job, monkeypatch):
    from trainer import periodic

    drawn = []
    monkeypatch.setattr(periodic, "draw_loss_map", lambda _path, losses, _title: drawn.append([step for step, _ in losses["validation"]]))
    run(job, "plain", validate={"split": 0.2, "every_epochs": None})
    assert drawn[-1] == [0, 4]
