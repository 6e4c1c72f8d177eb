"""Check Training and the Memory node beside a fake ComfyUI."""

from __future__ import annotations

import pytest
import torch
from loaded_pack import Pack
from test_train_node import inputs


def _sockets(pack: Pack) -> dict:
    return {name: value for name, value in inputs(pack).items() if name in ("base", "dataset", "lora", "training")}


def test_the_report_says_what_training_would_do_and_trains_nothing(pack: Pack) -> None:
    with torch.inference_mode():  # as ComfyUI runs every node
        answer = pack.call("Check", **_sockets(pack), node_id="7")
    report, steps, mib = answer["result"]
    assert pack.comfy.texts[-1] == ("7", report) and answer["ui"]["text"] == [report]
    assert f"= {steps} steps" in report and f"memory (estimated): {mib:,} MiB" in report
    assert not list((pack.comfy.base / "models/loras").iterdir())
    assert pack.comfy.unloaded == 0  # models stay where they are
    assert len(pack.call("TrainLora", **inputs(pack))["result"][3]["loss"]) == steps


def test_memory_settings_travel_to_the_training(pack: Pack) -> None:
    sockets = _sockets(pack)
    training = pack.call("Memory", training=sockets["training"], weights="int8", checkpoint_every=3)[0]
    assert (training["memory"].weights, training["memory"].checkpoint_every) == ("int8", 3)
    report = pack.call("Check", **{**sockets, "training": training})["result"][0]
    assert "memory.checkpoint_every: has no effect without train.gradient_checkpointing" in report


def test_bad_settings_are_an_error_on_the_node(pack: Pack) -> None:
    sockets = _sockets(pack)
    training = pack.call("Optimizer", training=sockets["training"], optimizer="adamw", optimizer_args="momentum=1")[0]
    with pytest.raises(Exception, match=r"optimizer\.args"):
        pack.call("Check", **{**sockets, "training": training})


def test_nothing_is_written_beside_the_loras_and_their_names_are_no_matter(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack.part("trainer.data.known"), "SETTLED", -1e9)  # what is found out about pictures is kept at once
    loras = pack.comfy.base / "models/loras"
    (loras / "my_lora.safetensors").write_bytes(b"trained before")
    report = pack.call("Check", **_sockets(pack))["result"][0]
    assert [path.name for path in loras.iterdir()] == ["my_lora.safetensors"]
    assert (pack.comfy.base / "output/lora_furnace/.cache/known").is_dir()
    assert "exists already" not in report
