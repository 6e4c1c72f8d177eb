"""Which layers are trained, and with what rank."""

from __future__ import annotations

import pytest
from torch import nn

from trainer.config import AdapterSection
from trainer.errors import ConfigError
from trainer.families import AdapterTarget
from trainer.families.sd_specs import SD15
from trainer.methods.block_plan import plan_blocks
from trainer.methods.targets import choose_targets, matches, near_misses

UNET = "lora_unet_mid_block_"
KEYS = {
    "te": "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "q1": UNET + "attentions_0_attn1_to_q",
    "q2": UNET + "attentions_0_attn2_to_q",
    "out": UNET + "attentions_0_proj_out",
    "conv": UNET + "resnets_0_conv1",
    "time": UNET + "resnets_0_time_emb_proj",
    "short": UNET + "resnets_0_conv_shortcut",
}
TARGETS = [
    AdapterTarget("text_encoder", KEYS["te"], nn.Linear(2, 2)),
    AdapterTarget("unet", KEYS["q1"], nn.Linear(2, 2)),
    AdapterTarget("unet", KEYS["q2"], nn.Linear(2, 2)),
    AdapterTarget("unet", KEYS["out"], nn.Conv2d(2, 2, 1)),
    AdapterTarget("unet", KEYS["conv"], nn.Conv2d(2, 2, 3), "conv"),
    AdapterTarget("unet", KEYS["time"], nn.Linear(2, 2), "conv"),
    AdapterTarget("unet", KEYS["short"], nn.Conv2d(2, 2, 1), "conv"),
]
NAMES = {key: name for name, key in KEYS.items()}


def chosen(**settings) -> dict[str, tuple[int, float]]:
    """Short name -> rank and alpha of the layers that are trained."""
    section = AdapterSection(rank=16, alpha=8.0, **settings)
    places = {NAMES[target.key]: plan_blocks(section, SD15).place(target) for target in choose_targets(section, TARGETS)}
    return {name: (place.rank, place.alpha) for name, place in places.items() if place}


def test_plain_lora_leaves_convolutions_alone():
    assert chosen() == dict.fromkeys(("te", "q1", "q2", "out"), (16, 8.0))


def test_conv_rank_counts_for_large_kernels_alone():
    """kohya's rule: 1x1 convolutions, conv_shortcut and time_emb_proj use rank and alpha."""
    plain = dict.fromkeys(("te", "q1", "q2", "out", "time", "short"), (16, 8.0))
    assert chosen(conv_rank=4, conv_alpha=1.0) == plain | {"conv": (4, 1.0)}
    assert chosen(conv_rank=4) == plain | {"conv": (4, 2.0)}  # as strong as the rest: 8/16 = 2/4


def test_ranks_by_block_come_before_conv_rank():
    plain = dict.fromkeys(("te", "q1", "q2", "out", "time", "short"), (16, 8.0))
    assert chosen(blocks={"conv_ranks": "M00=2"}) == plain | {"conv": (2, 8.0)}
    assert chosen(conv_rank=4, blocks={"conv_ranks": "M00=2"}) == plain | {"conv": (2, 2.0)}
    assert chosen(conv_rank=4, blocks={"ranks": "M00=2"})["conv"] == (4, 2.0)


def test_parts():
    assert set(chosen(train_text_encoder=False)) == {"q1", "q2", "out"}
    assert set(chosen(train_unet=False)) == {"te"}


def test_include_and_exclude():
    assert set(chosen(include=("attn2",))) == {"q2"}
    assert set(chosen(include=("attn2", "lora_te*"))) == {"q2", "te"}
    assert set(chosen(exclude=("*_to_q",))) == {"te", "out"}
    assert set(chosen(include=("unet",), exclude=("attn1",))) == {"q2", "out"}
    assert set(chosen(include="attn1, attn2\nfc1")) == {"q1", "q2", "te"}
    assert set(chosen(include=("resnets",), conv_rank=4)) == {"conv", "time", "short"}


def test_how_a_pattern_fits():
    assert matches("attn1", KEYS["q1"]) and not matches("attn1", KEYS["q2"])
    assert matches("*attn?_to_q", KEYS["q1"]) and not matches("attn?_to_q", KEYS["q1"])
    assert matches("*attn[12]*", KEYS["q2"]) and not matches("*ATTN1*", KEYS["q1"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"include": ("atn1",)}, r"method\.include: 'atn1' fits none of the 4 layers; near misses: attn1, attn2"),
        ({"exclude": ("*proj_ou",)}, r"method\.exclude: '\*proj_ou' fits none of the 4 layers; near misses: proj_out"),
        ({"include": ("xyzzy",)}, rf"near misses: {KEYS['te']}, {KEYS['q1']}, {KEYS['q2']}"),
        ({"include": ("resnets",)}, r"'resnets' fits only layers that join with method\.conv_rank"),
        ({"include": ("lora_te",), "train_text_encoder": False}, r"'lora_te' fits none of the 3 layers"),
        ({"include": ("attn1",), "exclude": ("to_q",)}, r"include and exclude leave no layer to train"),
    ],
)
def test_a_pattern_that_fits_nothing_is_an_error(settings, words):
    with pytest.raises(ConfigError, match=words):
        chosen(**settings)


def test_near_misses_have_as_many_words_as_the_pattern():
    assert near_misses("attn1_to_k", list(KEYS.values()))[0] == "attn1_to_q"
