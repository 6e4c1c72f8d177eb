"""Resume Training: goes on with a run from what it left behind, and needs nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fake_comfy import InterruptProcessingException
from loaded_pack import Pack


def inputs(pack: Pack, steps: int = 4, **training: Any) -> dict[str, Any]:
    """A job on a model in ComfyUI's folders, saved at each step, at a constant rate."""
    base = pack.comfy.base / "models" / "diffusers" / "tiny"
    if not base.is_dir():
        shutil.copytree(pack.comfy.base / "tiny_base", base)
    quiet = {"precision": "fp32", "steps": steps, "save_every_epochs": 0, "save_dtype": "fp32", "schedule": "constant", "warmup": 0.0}
    return {
        "base": pack.call("BaseModel", checkpoint="diffusers/tiny")[0],
        "dataset": pack.call("Dataset", folder="input/cat", width=64, height=64)[0],
        "lora": pack.call("Lora", rank=2)[0],
        "training": pack.call("Training", **quiet | training)[0],
        "lora_name": "cat",
    }


def run_folder(pack: Pack) -> Path:
    return pack.comfy.base / "output/lora_furnace/cat"


def cancel(pack: Pack, monkeypatch: pytest.MonkeyPatch, job: dict[str, Any]) -> None:
    """Train until the first step."""

    def watch(text: str, *_: Any, **__: Any) -> None:
        if text.startswith("step 1/"):
            pack.comfy.cancelled.set()

    with monkeypatch.context() as patch:
        patch.setattr(pack.part("nodes.host").PromptServer.instance, "send_progress_text", watch)
        patch.setattr(pack.part("nodes.bridge"), "TEXTS_PER_SECOND", 1e9)
        with pytest.raises(InterruptProcessingException):
            pack.call("TrainLora", **job)


def test_a_cancelled_run_goes_on_exactly(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    node = pack.node("Resume")
    (choice,) = node.INPUT_TYPES()["required"]["run"][0]
    with pytest.raises(ValueError, match="is not a folder below .* train something, then press R"):
        pack.call("Resume", run=choice)
    cancel(pack, monkeypatch, inputs(pack))
    assert node.INPUT_TYPES()["required"]["run"][0] == ["cat"]
    before = node.IS_CHANGED(run="cat")
    name, _, resumed, losses, *_ = pack.call("Resume", run="cat", node_id="5")["result"]
    assert (name, len(losses["loss"])) == ("cat.safetensors", 4) and node.IS_CHANGED(run="cat") != before
    assert ("5", "resuming after step 1") in pack.comfy.texts
    again = pack.call("TrainLora", **inputs(pack))["result"]
    assert again[0] == name and "already trained" in pack.comfy.texts[-1][1], "the workflow's own node knows that it is done"
    pack.call("Resume", run="cat")
    assert "already trained" in pack.comfy.texts[-1][1]
    shutil.rmtree(run_folder(pack))
    (pack.comfy.base / "models/loras/cat.safetensors").unlink()
    _, _, whole, whole_losses, *_ = pack.call("TrainLora", **inputs(pack) | {"lora_name": "whole"})["result"]
    assert whole_losses["loss"] == losses["loss"]
    assert whole.keys() == resumed.keys() and all(torch.equal(resumed[key], tensor) for key, tensor in whole.items())


def test_a_finished_run_can_be_trained_longer(pack: Pack) -> None:
    pack.call("TrainLora", **inputs(pack, steps=2))
    *_, losses, _, _ = pack.call("Resume", run="cat", steps=3)["result"]
    assert len(losses["loss"]) == 3
    written = yaml.safe_load((run_folder(pack) / "config.yaml").read_text())
    assert written["train"]["steps"] == 3
    assert pack.call("TrainLora", **inputs(pack, steps=3))["result"][0] == "cat.safetensors"
    assert "already trained" in pack.comfy.texts[-1][1]
    assert pack.call("TrainLora", **inputs(pack, steps=2))["result"][0] == "cat_2.safetensors"


def test_a_cosine_follows_the_new_length(pack: Pack, caplog: pytest.LogCaptureFixture) -> None:
    pack.call("TrainLora", **inputs(pack, steps=2, schedule="cosine"))
    *_, losses, _, _ = pack.call("Resume", run="cat", steps=3)["result"]
    assert len(losses["loss"]) == 3
    assert "schedule.length: was 2, now 3: from here on the learning rate follows the new length" in caplog.text


def test_runs_are_described_where_they_are_chosen(pack: Pack) -> None:
    *_, losses, _, _ = pack.call("TrainLora", **inputs(pack, steps=2))["result"]
    mean = sum(losses["loss"]) / 2
    (line,) = pack.node("Resume").INPUT_TYPES()["required"]["run"][1]["tooltip"].splitlines()[1:]
    assert re.fullmatch(rf"cat: step 2 of 2, loss {mean:.4f}, \d{{4}}-\d\d-\d\d \d\d:\d\d", line)


def test_what_may_not_change_is_named(pack: Pack) -> None:
    pack.call("TrainLora", **inputs(pack, steps=2))
    mismatch = pack.part("trainer.errors").ResumeMismatch
    (pack.comfy.base / "input/cat/00.txt").write_text("an edited caption")
    (pack.comfy.base / "models/loras/cat.safetensors").unlink()
    with pytest.raises(mismatch, match="dataset: was"):
        pack.call("Resume", run="cat")


def test_train_lora_tells_of_an_unfinished_run_that_it_passes(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel(pack, monkeypatch, inputs(pack))
    assert pack.call("TrainLora", **inputs(pack, steps=1))["result"][0] == "cat_2.safetensors"
    assert "(cat is an unfinished run with other settings; Resume Training finishes it)" in pack.comfy.texts[-1][1]


def test_a_run_cannot_name_what_lies_elsewhere(pack: Pack) -> None:
    pack.call("TrainLora", **inputs(pack, steps=1))
    with pytest.raises(ValueError, match="is not a folder below"):
        pack.call("Resume", run="../lora_furnace/cat")
    config = run_folder(pack) / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"validate": {"folder": "/usr"}}))
    with pytest.raises(pack.part("trainer.errors").ConfigError, match=r"validate\.folder: /usr does not lie in ComfyUI's folders"):
        pack.call("Resume", run="cat")


def test_drawn_regularisation_pictures_are_among_what_a_run_can_name(pack: Pack) -> None:
    job = inputs(pack, steps=1)
    drawn = {"prompts": "a cat", "count": 1, "width": 64, "height": 64, "steps": 1, "precision": "fp32", "device": "cpu"}
    job["dataset"] = pack.call("DrawRegularization", dataset=job["dataset"], base=job["base"], **drawn)[0]
    pack.call("TrainLora", **job)
    assert len(pack.call("Resume", run="cat", steps=2)["result"][3]["loss"]) == 2
    sockets = {name: job[name] for name in ("base", "dataset")}
    pack.call("SaveConfiguration", file_name="drawn", lora_name="cat", **sockets)
    assert pack.call("LoadConfiguration", config="configs/drawn.yaml")[1].folders == job["dataset"].folders
