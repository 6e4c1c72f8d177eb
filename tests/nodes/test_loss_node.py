"""The loss analysis beside a fake ComfyUI."""

from __future__ import annotations

from loaded_pack import Pack
from test_train_node import inputs


def test_losses_of_our_training_and_of_the_native_node(pack: Pack) -> None:
    losses = pack.call("TrainLora", **inputs(pack))["result"][3]
    answer = pack.call("LossAnalysis", losses=losses, node_id="5")
    text, curve, table = answer["result"]
    assert text.startswith("too short") and table == "" and set(losses) == {"loss", "validation", "lr", "bands", "base"}
    assert curve.shape[0] == 1 and curve.shape[3] == 3
    assert pack.comfy.texts[-1] == ("5", text)
    native = {"loss": [0.1] * 40}
    assert pack.call("LossAnalysis", losses=native)["result"][0].startswith("plateau")
    assert (pack.comfy.base / "temp" / answer["ui"]["images"][0]["filename"]).is_file()


def test_validation_travels_along(pack: Pack) -> None:
    losses = {"loss": [0.2] * 40, "validation": [(0, 0.2), (20, 0.1), (40, 0.3)]}
    text = pack.call("LossAnalysis", losses=losses)["result"][0]
    assert "over-fits: use the file nearest to step 20" in text
