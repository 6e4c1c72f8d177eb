"""The saved names and shapes of full-size models are kohya's, so that every program that reads its files reads ours."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from real_size import targets_of

from trainer.adapters import ADAPTERS, LayerShape
from trainer.adapters.inject import fresh_layers
from trainer.families import FAMILIES

GOLDEN = Path(__file__).parents[1] / "golden"  # kohya_<family>.json: [key, shape of lora_down, shape of lora_up], rank 4
RANK = 4
# Part -> modules, numbers at rank 4; from kohya's own count of what it trains.
COUNTS = {
    "sd15": {"text_encoder": (72, 663_552), "unet": (192, 1_695_744)},
    "sd2": {"text_encoder": (138, 1_695_744), "unet": (192, 1_728_512)},
    "sdxl": {"text_encoder": (72, 663_552), "text_encoder_2": (192, 2_949_120), "unet": (722, 10_639_360)},
}


@pytest.mark.parametrize("family", COUNTS)
def test_keys_shapes_and_numbers_are_kohyas(family):
    expected = {key: (down, up) for key, down, up in json.loads((GOLDEN / f"kohya_{family}.json").read_text())}
    found, counts = {}, {}
    targets = [target for target in targets_of(family) if target.kind == "plain"]
    for target in targets:
        tensors = ADAPTERS["lora"].init(LayerShape.of(target.module), RANK, torch.Generator())
        shapes = [list(tensors[f"lora_{half}.weight"].shape) for half in ("down", "up")]
        found[target.key] = tuple(shapes)
        modules, numbers = counts.get(target.part, (0, 0))
        counts[target.part] = (modules + 1, numbers + sum(tensor.numel() for tensor in tensors.values()))
    assert len(found) == len(targets)
    assert found == expected
    assert counts == COUNTS[family]


@pytest.mark.parametrize(("family", "modules", "numbers"), [("sd15", 278, 4_203_264), ("sdxl", 788, None)])
def test_keys_and_shapes_with_convolutions_are_kohyas(family, modules, numbers):
    """LoCon trains the UNet's layers of a plain LoRA and those of kohya_<family>_conv.json."""
    expected = {key: (down, up) for key, down, up in json.loads((GOLDEN / f"kohya_{family}_conv.json").read_text())}
    targets = [target for target in targets_of(family) if target.part == "unet"]
    tensors = {target.key: ADAPTERS["lora"].init(LayerShape.of(target.module), RANK, torch.Generator()) for target in targets}
    shapes = {key: tuple(list(own[f"lora_{half}.weight"].shape) for half in ("down", "up")) for key, own in tensors.items()}
    assert {target.key: shapes[target.key] for target in targets if target.kind == "conv"} == expected
    assert len(tensors) == modules
    assert numbers is None or sum(tensor.numel() for own in tensors.values() for tensor in own.values()) == numbers


def divisors(number: int) -> tuple[int, int]:
    """The two factors nearest to each other, the smaller one first, as LyCORIS splits a size."""
    small = max(factor for factor in range(1, int(number**0.5) + 1) if number % factor == 0)
    return small, number // small


def lycoris_shapes(kind: str, down: list[int], up: list[int]) -> dict[str, tuple[int, ...]]:
    """What LyCORIS saves for the layer whose LoRA has these shapes."""
    outputs, inputs, kernel = up[0], down[1], tuple(down[2:])
    pixels = math.prod(kernel)
    if kind == "loha":
        factors = {"a": (outputs, RANK), "b": (RANK, inputs * pixels)}
        return {f"hada_w{number}_{letter}": shape for number in (1, 2) for letter, shape in factors.items()}
    if kind == "lokr":
        (out_l, out_k), (in_m, in_n) = divisors(outputs), divisors(inputs)
        whole = {"lokr_w2": (out_k, in_n, *kernel)}
        cut = {"lokr_w2_a": (out_k, RANK), "lokr_w2_b": (RANK, in_n * pixels)}
        return {"lokr_w1": (out_l, in_m)} | (cut if max(out_k, in_n) > 2 * RANK else whole)
    return {"lora_down.weight": tuple(down), "lora_up.weight": tuple(up)}


@pytest.mark.parametrize("dora", [False, True], ids=["plain", "dora"])
@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_every_kind_saves_the_tensors_of_its_format(family, kind, dora):
    """Every layer of the real architecture, convolutions included; those of equal shape have equal tensors."""
    files = (f"kohya_{family}.json", f"kohya_{family}_conv.json")
    rows = {key: (down, up) for file in files for key, down, up in json.loads((GOLDEN / file).read_text())}
    expected, found, known = {}, {}, {}
    for key, (down, up) in rows.items():
        tensors = lycoris_shapes(kind, down, up) | ({"dora_scale": (1, down[1], *(1 for _ in down[2:]))} if dora else {})
        expected |= {f"{key}.{name}": shape for name, shape in (tensors | {"alpha": ()}).items()}
    for target in targets_of(family):
        shape = tuple(target.module.weight.shape)
        if shape not in known:
            (layer,) = fresh_layers(ADAPTERS[kind], [("", target.module)], RANK, 1.0, 1, dora)
            saved = {name: tuple(tensor.shape) for name, tensor in layer.tensors.items()}
            known[shape] = saved | {"alpha": ()}  # which `AdapterSet.saved` adds
        found |= {f"{target.key}.{name}": size for name, size in known[shape].items()}
    assert found == expected


def test_every_family_has_its_table():
    names = {path.stem.removeprefix("kohya_") for path in GOLDEN.glob("kohya_*.json")}
    assert {name for name in names if not name.endswith("_conv")} == set(COUNTS) == set(FAMILIES)
