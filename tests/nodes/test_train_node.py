"""Train LoRA beside a fake ComfyUI, on a tiny random model."""

from __future__ import annotations

import importlib
import operator
import weakref
from typing import Any

import pytest
import torch
from fake_comfy import InterruptProcessingException
from loaded_pack import Pack


def inputs(pack: Pack, name: str = "cat", steps: int = 2, **training: Any) -> dict[str, Any]:
    """What is linked to Train LoRA."""
    quiet = {"precision": "fp32", "steps": steps, "save_every_epochs": 0, "sample_every_epochs": 0}
    return {
        "base": pack.base(),
        "dataset": pack.call("Dataset", folder="input/cat", width=64, height=64)[0],
        "lora": pack.call("Lora", rank=2)[0],
        "training": pack.call("Training", **quiet | training)[0],
        "lora_name": name,
        "node_id": "7",
    }


def files(pack: Pack) -> list[str]:
    return sorted(path.name for path in (pack.comfy.base / "models/loras").iterdir())


def test_train(pack: Pack) -> None:
    with torch.inference_mode():  # as ComfyUI runs every node
        answer = pack.call("TrainLora", **inputs(pack, sample_prompts="a\nb", sample_every_steps=1, sample_steps=1, save_every_steps=1))
    name, names, tensors, losses, samples, curve = answer["result"]
    assert (name, names) == ("cat.safetensors", "cat-step00000001.safetensors\ncat.safetensors")
    assert files(pack) == names.splitlines()
    assert any(key.endswith("lora_up.weight") for key in tensors)
    assert len(losses["loss"]) == 2
    assert [sample.shape for sample in samples] == [(1, 64, 64, 3)] * 2
    assert curve.ndim == 4
    last = [{"filename": f"step00000002_0{number}.png", "subfolder": "lora_furnace/cat/samples", "type": "output"} for number in (0, 1)]
    assert answer["ui"]["images"] == last
    shown = [(value, total) for value, total, preview in pack.comfy.progress if preview]
    assert shown == [(1, 2), (1, 2), (2, 2), (2, 2)]
    assert {node for node, _ in pack.comfy.texts} == {"7"}
    assert any(text.startswith("step 2/2, epoch 1, loss ") for _, text in pack.comfy.texts)
    assert pack.comfy.texts[-1][1].startswith("cat.safetensors: 2 steps in")
    assert pack.comfy.unloaded == 2  # before and after


def test_without_samples_the_curve_is_shown(pack: Pack) -> None:
    answer = pack.call("TrainLora", **inputs(pack))
    *_, samples, curve = answer["result"]
    assert len(samples) == 1 and torch.equal(samples[0], curve)
    assert answer["ui"]["images"] == [{"filename": "loss.png", "subfolder": "lora_furnace/cat", "type": "output"}]


def test_the_sections_of_a_chain_reach_the_training(pack: Pack) -> None:
    given = inputs(pack)
    given["training"] = pack.call("LossNoise", training=given["training"], loss="l1", noise_offset=0.1, max_timestep=500)[0]
    pack.call("TrainLora", **given)
    written = (pack.comfy.base / "output/lora_furnace/cat/config.yaml").read_text()
    config = pack.part("trainer.config").from_dict(pack.part("trainer.config.io").yaml.safe_load(written))
    assert (config.loss.kind, config.noise.offset, config.noise.max_timestep, config.train.steps) == ("l1", 0.1, 500, 2)


def test_equal_jobs_are_not_trained_twice(pack: Pack) -> None:
    first = pack.call("TrainLora", **inputs(pack))
    pack.comfy.progress.clear()
    again = pack.call("TrainLora", **inputs(pack))
    assert again["result"][:2] == first["result"][:2]
    assert again["result"][3] == first["result"][3]
    assert pack.comfy.progress == []
    assert "already trained" in pack.comfy.texts[-1][1]


def test_another_job_takes_another_name(pack: Pack) -> None:
    (pack.comfy.base / "models/loras/cat.safetensors").write_bytes(b"someone else's")
    assert pack.call("TrainLora", **inputs(pack))["result"][0] == "cat_2.safetensors"
    (pack.comfy.base / "input/cat/00.txt").write_text("an edited caption")
    assert pack.call("TrainLora", **inputs(pack))["result"][0] == "cat_3.safetensors"
    assert "(cat was taken)" in pack.comfy.texts[-1][1]
    assert (pack.comfy.base / "models/loras/cat.safetensors").read_bytes() == b"someone else's"


def test_cancel_keeps_the_work_and_goes_on(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    job = inputs(pack, steps=6)
    show = pack.comfy._text

    def cancel_at_step_2(text: str, node_id: str, sid: str | None = None) -> None:
        show(text, node_id, sid)
        if text.startswith("step 2/"):
            pack.comfy.cancelled.set()

    monkeypatch.setattr(pack.part("nodes.host").PromptServer.instance, "send_progress_text", cancel_at_step_2)
    monkeypatch.setattr(pack.part("nodes.bridge"), "TEXTS_PER_SECOND", 1e9)
    with pytest.raises(InterruptProcessingException):
        pack.call("TrainLora", **job)
    assert not pack.comfy.cancelled.is_set(), "the interrupt must be raised once"
    (partial,) = files(pack)
    assert partial.startswith("cat-step") and (pack.comfy.base / "output/lora_furnace/cat/state.pt").is_file()
    assert "run again" in pack.comfy.texts[-1][1] or "go on" in pack.comfy.texts[-1][1]

    monkeypatch.undo()
    pack.comfy.texts.clear()
    name, names, _, losses, *_ = pack.call("TrainLora", **job)["result"]
    assert (name, names) == ("cat.safetensors", f"{partial}\ncat.safetensors")
    assert len(losses["loss"]) == 6
    assert any("resuming" in text for _, text in pack.comfy.texts)


def test_a_deleted_lora_does_not_come_out_of_comfyuis_cache(pack: Pack) -> None:
    """ComfyUI runs a node again where IS_CHANGED differs; a training must not make it differ, or what follows would run twice."""
    stamp = pack.node("TrainLora").IS_CHANGED
    before = stamp(lora_name="cat")
    name, _, tensors, *_ = pack.call("TrainLora", **inputs(pack, save_every_steps=1))["result"]
    file = pack.comfy.base / "models/loras" / name
    assert stamp(lora_name="cat") == before
    file.unlink()
    assert stamp(lora_name="cat") != before and stamp(lora_name="ca") == before
    again, _, written, *_ = pack.call("TrainLora", **inputs(pack, save_every_steps=1))["result"]
    assert again == name and file.is_file() and stamp(lora_name="cat") == before
    assert all(torch.equal(written[key], tensor) for key, tensor in tensors.items())
    assert any("resuming after step 2" in text for _, text in pack.comfy.texts), "from its state, not from the beginning"


def test_numbered_files_may_be_thrown_away(pack: Pack) -> None:
    pack.call("TrainLora", **inputs(pack, save_every_steps=1))
    (pack.comfy.base / "models/loras/cat-step00000001.safetensors").unlink()
    pack.comfy.texts.clear()
    assert pack.call("TrainLora", **inputs(pack, save_every_steps=1))["result"][:2] == ("cat.safetensors", "cat.safetensors")
    assert "already trained" in pack.comfy.texts[-1][1]


def test_provenance_is_no_other_job(pack: Pack) -> None:
    pack.call("TrainLora", **inputs(pack))
    given = inputs(pack)
    given["training"] = {**given["training"], "from_presets": ("style",)}
    assert pack.call("TrainLora", **given)["result"][0] == "cat.safetensors"


def test_errors_carry_the_trainers_message(pack: Pack) -> None:
    with pytest.raises(pack.part("trainer.errors").TrainerError, match="not_there.safetensors"):
        base = pack.part("trainer.config").BaseSection(checkpoint="not_there.safetensors")
        pack.call("TrainLora", **inputs(pack) | {"base": base})
    assert pack.comfy.unloaded == 2
    with pytest.raises(pack.part("trainer.errors").ConfigError, match="lora_name"):
        pack.call("TrainLora", **inputs(pack, name="a/b"))


def test_name_fits_every_list_of_names(pack: Pack) -> None:
    socket = pack.node("TrainLora").RETURN_TYPES[0]
    assert not operator.ne(socket, ["a.safetensors", "b.safetensors"])  # how the server compares
    assert not operator.ne(socket, "STRING")
    assert str(socket) == "COMBO,STRING"


def test_out_of_memory_keeps_nothing(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """While ComfyUI holds the error, the model is gone, and what it took is given back."""
    run, loop = (importlib.import_module(f"{pack.module.__name__}.trainer.{name}") for name in ("run", "loop"))
    networks, load = [], run.load_base

    def loaded(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        networks.extend(weakref.ref(network) for network in (model.unet, model.vae, *model.text_encoders.values()))
        return model

    def fails(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(run, "load_base", loaded)
    monkeypatch.setattr(loop, "batch_loss", fails)
    with pytest.raises(pack.part("trainer.errors").OutOfMemory, match="What needs less: ") as caught:
        pack.call("TrainLora", **inputs(pack))
    assert len(networks) == 3 and [network() for network in networks] == [None] * 3, caught.value
    assert pack.comfy.unloaded == 2
