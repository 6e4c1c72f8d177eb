"""Block-wise settings on the real architectures: each tensor's learning rate, and the layers that are left out.

Expected are the formulas of kohya's network module: a block's rate is that of the image part times its weight, and a weight that is
not above the threshold makes no layer. Lists that kohya's code cuts, fills up or stumbles over are errors here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from real_size import meta_model

from trainer.config import AdapterSection, BlockSection, OptimizerSection
from trainer.errors import ConfigError
from trainer.families import FAMILIES
from trainer.methods import METHODS

UNET_RATE, TEXT_RATE = 2e-4, 5e-5
RANK = 4
# Modules of each index of the training vector, as kohya's code sorts them: of a plain LoRA, further ones with 1x1 and 3x3 kernels.
SD15_PLAIN = [0, 12, 12, 0, 12, 12, 0, 12, 12, 0, 0, 0, 12, 0, 0, 0, *[12] * 9]
SD15_POINT = [0, 1, 1, 0, 2, 1, 0, 2, 1, 0, 1, 1, 2, *[2] * 12]
SD15_SPATIAL = [0, 2, 2, 1, 2, 2, 1, 2, 2, 1, 2, 2, 4, 2, 2, 3, 2, 2, 3, 2, 2, 3, 2, 2, 2]
SDXL_PLAIN = [0, 0, 0, 0, 0, 22, 22, 0, 102, 102, 0, 102, 0, 102, 102, 102, 22, 22, 22, 0, 0, 0, 0]
NAMES = {
    "sd15": [*(f"IN{i:02d}" for i in range(12)), "M00", *(f"OUT{i:02d}" for i in range(12))],
    "sdxl": ["EMB", *(f"IN{i:02d}" for i in range(9)), "M00", "M01", "M02", *(f"OUT{i:02d}" for i in range(9)), "FINAL"],
}
SINE12, SINE9 = ([math.sin(math.pi / 2 * i / (n - 1)) for i in range(n)] for n in (12, 9))
LINEAR12, LINEAR9 = ([i / (n - 1) for i in range(n)] for n in (12, 9))
ONES, ONES9 = [1.0] * 12, [1.0] * 9
HALF = [0.0] * 6 + [1.0] * 6


def sd15(down: Sequence[float] = ONES, mid: float = 1.0, up: Sequence[float] = ONES) -> list[float]:
    return [*down, mid, *up]


def sdxl(down: Sequence[float] = ONES9, mid: Sequence[float] = (1.0, 1.0, 1.0), up: Sequence[float] = ONES9) -> list[float]:
    """kohya's code puts a one before and behind."""
    return [1.0, *down, *mid, *up, 1.0]


CASES: list[tuple[str, dict[str, Any], list[float]]] = [  # family, settings, weight of each index
    ("sd15", {"down": "sine"}, sd15(down=SINE12)),
    ("sd15", {"down": "cosine"}, sd15(down=SINE12[::-1])),
    ("sd15", {"up": "linear"}, sd15(up=LINEAR12)),
    ("sd15", {"up": "reverse_linear"}, sd15(up=LINEAR12[::-1])),
    ("sd15", {"down": "zeros"}, sd15(down=[0.0] * 12)),
    ("sd15", {"down": "cosine+.25", "up": "sine+.25"}, sd15([0.25 + x for x in SINE12[::-1]], up=[0.25 + x for x in SINE12])),
    ("sd15", {"down": "zeros+0.5", "mid": "2"}, sd15([0.5] * 12, 2.0)),
    ("sd15", {"mid": "0"}, sd15(mid=0.0)),
    ("sd15", {"down": "0,0,0,0,0,0,1,1,1,1,1,1", "mid": "0.5", "up": "1,1,1,1,1,1,0,0,0,0,0,0"}, sd15(HALF, 0.5, HALF[::-1])),
    ("sd15", {"up": "1,,1,1,1,1,,1,1,1,1,.5"}, sd15(up=[1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0.5])),
    ("sd15", {"down": "linear", "zero_threshold": 0.4}, sd15([x if x > 0.4 else 0.0 for x in LINEAR12])),
    ("sd15", {"up": "0.1,0.2,0.3,0.4,0.5,0.6,0.7,1,1,1,1,1", "zero_threshold": 0.5}, sd15(up=[0.0] * 5 + [0.6, 0.7] + [1] * 5)),
    ("sd15", {"weights": ",".join(f"{i / 10:g}" for i in range(25))}, [i / 10 for i in range(25)]),
    ("sd15", {"ranks": ",".join("0" if i in (4, 12, 24) else "4" for i in range(25))}, [float(i not in (4, 12, 24)) for i in range(25)]),
    ("sd15", {"conv_rank": 2}, sd15()),
    ("sd15", {"down": "zeros", "mid": "0", "up": "cosine", "conv_rank": 2}, sd15([0.0] * 12, 0.0, SINE12[::-1])),
    ("sdxl", {"down": "sine", "up": "cosine"}, sdxl(SINE9, up=SINE9[::-1])),
    ("sdxl", {"down": "linear+.25", "mid": "0.5,1,2"}, sdxl([0.25 + x for x in LINEAR9], (0.5, 1.0, 2.0))),
    ("sdxl", {"up": "1,1,1,0,0,0,1,1,1"}, sdxl(up=[1, 1, 1, 0, 0, 0, 1, 1, 1])),
    ("sdxl", {"mid": "1,0,1", "down": "linear", "zero_threshold": 0.6}, sdxl([x if x > 0.6 else 0.0 for x in LINEAR9], (1.0, 0.0, 1.0))),
    ("sdxl", {"ranks": ",".join("4" if i in (11, 16) else "0" for i in range(23))}, [float(i in (11, 16)) for i in range(23)]),
    # A number alone, and minus after a curve, stop kohya's code; here they say what they look like.
    ("sd15", {"down": "0.5"}, sd15([0.5] * 12)),
    ("sd15", {"up": "linear-.25"}, sd15(up=[max(0.0, x - 0.25) for x in LINEAR12])),
    ("sdxl", {"mid": "0.5"}, sdxl(mid=(0.5, 0.5, 0.5))),
]  # fmt: skip


def modules_of(family: str, convolutions: bool) -> list[int]:
    """How many layers each index has."""
    if family == "sdxl":
        return SDXL_PLAIN
    return [sum(counts) for counts in zip(SD15_PLAIN, SD15_POINT, SD15_SPATIAL, strict=True)] if convolutions else SD15_PLAIN


@pytest.mark.parametrize(("family", "settings", "weights"), CASES, ids=lambda value: str(value) if isinstance(value, (str, dict)) else "")
def test_rates_and_layers(family: str, settings: dict[str, Any], weights: list[float]) -> None:
    settings = dict(settings)
    conv = {"conv_rank": settings.pop("conv_rank")} if "conv_rank" in settings else {}
    section = AdapterSection(rank=RANK, train_text_encoder=family == "sd15", blocks=BlockSection(**settings), **conv)
    method = METHODS["adapter"](section, OptimizerSection(lr=1.0, unet_lr=UNET_RATE, text_encoder_lr=TEXT_RATE))
    method.attach(FAMILIES[family], meta_model(family), seed=1)
    rates: Counter[float] = Counter()  # rate -> tensors
    for group in method.groups():
        rates[round(group.lr, 12)] += len(group.parameters)
    table, layers = FAMILIES[family].spec.blocks, Counter()
    assert table
    for name in {name.split(".")[0] for name in method.state()}:
        layers[table.block_of(name)] += 1
    method.detach()

    trained = [(block, count, weight) for block, count, weight in zip(NAMES[family], modules_of(family, bool(conv)), weights, strict=True)]
    expected_layers = {block: count for block, count, weight in trained if count and weight}
    expected_rates: Counter[float] = Counter({TEXT_RATE: 2 * 72} if family == "sd15" else {})
    for _, count, weight in trained:
        if count and weight:
            expected_rates[round(UNET_RATE * weight, 12)] += 2 * count
    assert layers == expected_layers | ({"BASE": 72} if family == "sd15" else {})
    assert rates == expected_rates


def listed(count: int, number: str = "4") -> str:
    return ",".join([number] * count)


MALFORMED = [  # family, settings, what is said
    ("sd15", {"down": listed(3, "1")}, "method.blocks.down: 3 values do not fit"),  # kohya: filled up with 1
    ("sd15", {"up": listed(13, "1")}, "method.blocks.up: 13 values do not fit"),  # cut, or a TypeError
    ("sd15", {"mid": "1,1,1"}, "method.blocks.mid: 3 values do not fit"),  # the first one counts
    ("sdxl", {"down": listed(12, "1")}, "method.blocks.down: 12 values do not fit SDXL"),  # cut to 9
    ("sdxl", {"mid": "1,0"}, "method.blocks.mid: 2 values do not fit SDXL"),
    ("sd15", {"down": "cosin"}, "method.blocks.down: 'cosin' is unknown"),  # a formatting error
    ("sd15", {"up": "sine*2"}, "method.blocks.up: "),
    ("sd15", {"down": "sine+x"}, "method.blocks.down: "),
    ("sd15", {"up": listed(11, "1") + ",a"}, "method.blocks.up: 'a' is not a number"),
    ("sd15", {"mid": "nan"}, "method.blocks.mid: 'nan'"),
    ("sdxl", {"mid": "sine"}, "method.blocks.mid: "),
    ("sd15", {"weights": listed(24, "1")}, "method.blocks.weights: 24 values do not fit"),
    ("sd15", {"down": "zeros", "mid": "0", "up": "zeros"}, "every block is left out"),
    ("sd15", {"zero_threshold": 0.5}, "method.blocks.zero_threshold: 0.5 acts on"),
    ("sd15", {"ranks": listed(26)}, "method.blocks.ranks: 26 values do not fit"),  # an AssertionError
    ("sd15", {"ranks": listed(12)}, "method.blocks.ranks: 12 values do not fit"),
    ("sdxl", {"ranks": listed(25)}, "method.blocks.ranks: 25 values do not fit SDXL"),
    ("sdxl", {"alphas": listed(12)}, "method.blocks.alphas: 12 values do not fit SDXL"),
    ("sd15", {"ranks": listed(25, "4.5")}, "method.blocks.ranks: '4.5' is not a number"),
    ("sd15", {"ranks": listed(25, "-4")}, "method.blocks.ranks: '-4' is not a number"),
    ("sd15", {"ranks": listed(25, "0")}, "every block is left out: every rank is 0"),
    ("sd15", {"conv_ranks": listed(24)}, "method.blocks.conv_ranks: 24 values do not fit"),  # without a word
    ("sd15", {"conv_alphas": listed(25)}, "method.blocks.conv_alphas: acts on"),  # without a word
]


@pytest.mark.parametrize(("family", "settings", "message"), MALFORMED, ids=str)
def test_what_does_not_fit_is_refused_before_anything_is_joined(family: str, settings: dict[str, Any], message: str) -> None:
    section = AdapterSection(rank=RANK, blocks=BlockSection(**settings))
    method = METHODS["adapter"](section, OptimizerSection())
    with pytest.raises(ConfigError) as caught:
        method.attach(FAMILIES[family], meta_model(family), seed=1)
    assert any(message in problem for problem in caught.value.problems), caught.value.problems
    assert METHODS["adapter"].check_family(section, OptimizerSection(), FAMILIES[family].spec) == caught.value.problems
    assert method.groups() == []


def test_layers_with_convolutions_of_sdxl() -> None:
    """Indices that a plain LoRA leaves empty: 2, 3, 4, 7, 10, 12, 19, 20 and 21."""
    section = AdapterSection(rank=RANK, train_text_encoder=False, conv_rank=2, blocks=BlockSection(mid="1", ranks="4"))
    method = METHODS["adapter"](section, OptimizerSection())
    method.attach(FAMILIES["sdxl"], meta_model("sdxl"), seed=1)
    table = FAMILIES["sdxl"].spec.blocks
    assert table
    found = {table.block_of(name) for name in method.state()}
    method.detach()
    plain = {NAMES["sdxl"][index] for index, count in enumerate(SDXL_PLAIN) if count}
    assert found - plain == {NAMES["sdxl"][index] for index in (2, 3, 4, 7, 10, 12, 19, 20, 21)}


def test_there_are_cases_enough() -> None:
    assert len(CASES) >= 20 and len(MALFORMED) >= 20
