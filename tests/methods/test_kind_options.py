"""Options of the adapter algorithms: which are taken, which are reported, what a file says of them."""

from __future__ import annotations

import pytest

from trainer.adapters import ADAPTERS
from trainer.adapters.dylora import Dylora
from trainer.adapters.lokr import Lokr
from trainer.config import AdapterSection, BlockSection
from trainer.families import FAMILIES
from trainer.methods.block_plan import plan_blocks
from trainer.methods.kinds import algorithm, check_options
from trainer.methods.network import network_facts


def test_an_algorithm_takes_its_own_options():
    section = AdapterSection(adapter="lokr", lokr_factor=8, lokr_decompose_both=True, dylora_unit=2)
    assert algorithm(section) == Lokr(lokr_factor=8, lokr_decompose_both=True)
    assert algorithm(AdapterSection(adapter="dylora", dylora_unit=2)) == Dylora(dylora_unit=2)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_defaults_are_those_of_the_algorithms(name):
    assert algorithm(AdapterSection(adapter=name)) == ADAPTERS[name]
    assert check_options(AdapterSection(adapter=name)) == ([], [])


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"dylora_unit": 2}, "method.dylora_unit: has no effect with lora; it is an option of dylora"),
        ({"lokr_factor": 8, "adapter": "loha"}, "method.lokr_factor: has no effect with loha; it is an option of lokr"),
        ({"lokr_decompose_both": True}, "method.lokr_decompose_both: has no effect with lora; it is an option of lokr"),
        (
            {"adapter": "lokr", "tucker": True, "conv_rank": 4},
            "method.tucker: has no effect with lokr; it is an option of lora, loha, dylora",
        ),
        ({"conv_alpha": 1.0}, "method.conv_alpha: has no effect without method.conv_rank"),
        ({"tucker": True}, "method.tucker: acts on convolutions larger than 1x1, which are trained only with method.conv_rank"),
    ],
)
def test_an_option_without_effect_is_reported(settings, warning):
    assert check_options(AdapterSection(**settings)) == ([], [warning])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"adapter": "lorra"}, "method.adapter: 'lorra' is unknown; known: lora, loha, lokr, dylora"),
        ({"adapter": "dylora", "rank": 6}, "method.rank: 6 is no multiple of method.dylora_unit, 4; change one of them"),
        ({"adapter": "dylora", "conv_rank": 2}, "method.conv_rank: 2 is no multiple of method.dylora_unit, 4; change one of them"),
    ],
)
def test_options_that_cannot_work(settings, problem):
    assert check_options(AdapterSection(**settings)) == ([problem], [])


@pytest.mark.parametrize(
    ("settings", "module", "arguments"),
    [
        ({}, "networks.lora", None),
        ({"conv_rank": 4, "conv_alpha": 1.0}, "networks.lora", {"conv_dim": "4", "conv_alpha": "1.0"}),
        ({"conv_rank": 4, "tucker": True}, "lycoris.kohya", {"algo": "lora", "conv_dim": "4", "conv_alpha": "2.0", "use_tucker": "True"}),
        ({"dora": True}, "lycoris.kohya", {"algo": "lora", "dora_wd": "True", "wd_on_output": "False"}),
        ({"adapter": "loha"}, "lycoris.kohya", {"algo": "loha"}),
        ({"adapter": "lokr", "lokr_factor": 8}, "lycoris.kohya", {"algo": "lokr", "factor": "8"}),
        ({"adapter": "lokr", "lokr_decompose_both": True}, "lycoris.kohya", {"algo": "lokr", "factor": "-1", "decompose_both": "True"}),
        ({"adapter": "dylora", "dylora_unit": 2}, "lycoris.kohya", {"algo": "dylora", "block_size": "2"}),
    ],
)
def test_what_a_file_says_of_its_adapters(settings, module, arguments):
    expected = {"network_module": module} | ({"network_args": arguments} if arguments else {})
    assert network_facts(AdapterSection(rank=16, alpha=8.0, **settings)) == expected


ELEVENTHS = [f"{number / 11:g}" for number in range(12)]


@pytest.mark.parametrize(
    ("spec", "blocks", "arguments"),
    [
        ("sd15", {"up": "linear"}, {"down_lr_weight": ",".join(["1"] * 12), "mid_lr_weight": "1", "up_lr_weight": ",".join(ELEVENTHS)}),
        ("sdxl", {"mid": "0,0.5,1", "zero_threshold": 0.5}, {  # what is not above the threshold is 0
            "down_lr_weight": "1,1,1,1,1,1,1,1,1", "mid_lr_weight": "0,0,1", "up_lr_weight": "1,1,1,1,1,1,1,1,1",
            "block_lr_zero_threshold": "0.5",
        }),
        ("sd15", {"ranks": "M00=4, IN11=0", "conv_ranks": "IN00-IN02=2"}, {
            "block_dims": ",".join(["16"] * 11 + ["0", "4"] + ["16"] * 12), "conv_block_dims": ",".join(["2"] * 3 + ["0"] * 22),
        }),
        ("sdxl", {"alphas": "OUT00-OUT08=2"}, {"block_alphas": ",".join(["8"] * 13 + ["2"] * 9 + ["8"])}),
    ],
)  # fmt: skip
def test_what_a_file_says_of_its_blocks(spec, blocks, arguments):
    """Names and order of sd-scripts: 12, 1, 12 and 25 numbers; SDXL 9, 3, 9 and 23."""
    section = AdapterSection(rank=16, alpha=8.0, blocks=BlockSection(**blocks))
    plan = plan_blocks(section, FAMILIES[spec].spec)
    assert network_facts(section, plan) == {"network_module": "networks.lora", "network_args": arguments}
