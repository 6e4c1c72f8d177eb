"""Add to Queue and Queue Status beside a fake ComfyUI; the queue itself trains in another process."""

from __future__ import annotations

import math
import shlex
import subprocess

import pytest
from loaded_pack import Pack
from test_train_node import inputs


def test_a_job_waits_is_trained_elsewhere_and_taken_by_train_lora(pack: Pack) -> None:
    folder = pack.comfy.base / "output/lora_furnace/queue"
    assert pack.call("QueueStatus", node_id="9") == ("the queue is empty",)
    (text,) = pack.call("AddToQueue", **inputs(pack))
    said, _, command = text.partition(". In a terminal: ")
    assert said == "cat.yaml waits behind 0 jobs" and shlex.split(command)[-2:] == ["queue", str(folder)]
    shown = subprocess.run([*shlex.split(command), "--status"], cwd="/", capture_output=True, text=True, check=True)
    assert "waiting  cat.yaml" in shown.stdout
    assert pack.call("AddToQueue", **inputs(pack)) == ("cat.yaml is waiting in the queue already",)
    assert math.isnan(pack.node("AddToQueue").IS_CHANGED(lora_name="cat")), "it looks at the queue each time"
    (text,) = pack.call("AddToQueue", **inputs(pack, steps=3))
    assert text.startswith("cat_2.yaml waits behind 1 jobs")
    assert pack.call("QueueStatus", node_id="9") == ("waiting  cat.yaml\nwaiting  cat_2.yaml",)
    assert pack.comfy.texts[-1][0] == "9"
    assert not list((pack.comfy.base / "models/loras").iterdir()), "nothing is trained yet"

    for name in ("cat", "cat_2"):
        pack.part("trainer").train(pack.part("trainer").load_config(folder / f"{name}.yaml"), resume=True)
        (folder / f"{name}.yaml").unlink()
    pack.comfy.progress.clear()
    answer = pack.call("TrainLora", **inputs(pack))
    assert answer["result"][0] == "cat.safetensors" and pack.comfy.progress == [], "no step was trained"
    assert pack.call("TrainLora", **inputs(pack, steps=3))["result"][0] == "cat_2.safetensors"
    assert pack.call("AddToQueue", **inputs(pack)) == ("cat.safetensors: already trained, nothing to do",)


@pytest.mark.parametrize("name", ["queue", "configs", "Grids", "advice", "regularization"])
def test_the_packs_own_folders_are_no_names_of_runs(pack: Pack, name: str) -> None:
    for node in ("AddToQueue", "TrainLora"):
        with pytest.raises(pack.part("trainer.errors").ConfigError, match="lora_name: .* own folder"):
            pack.call(node, **inputs(pack, name=name))
    with pytest.raises(pack.part("trainer.errors").ConfigError, match="lora_name: .* own folder"):
        pack.call("SaveConfiguration", base=pack.base(), dataset=inputs(pack)["dataset"], file_name="job", lora_name=name)


def test_names_are_checked(pack: Pack) -> None:
    with pytest.raises(pack.part("trainer.errors").ConfigError, match="lora_name"):
        pack.call("AddToQueue", **inputs(pack, name="a/b"))
