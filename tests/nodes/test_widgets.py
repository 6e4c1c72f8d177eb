"""Config fields become inputs and come back as the same section."""

from __future__ import annotations

import pytest
from loaded_pack import Pack, defaults


@pytest.fixture
def widgets(pack: Pack):
    return pack.part("nodes.widgets")


@pytest.fixture
def config(pack: Pack):
    return pack.part("trainer.config")


@pytest.mark.parametrize(
    "name",
    [
        "AdapterSection",
        "OptimizerSection",
        "ScheduleSection",
        "TrainSection",
        "SampleSection",
        "CaptionSection",
        "LossSection",
        "NoiseSection",
    ],
)
def test_untouched_widgets_are_the_defaults(widgets, config, name: str) -> None:
    section = getattr(config, name)
    part = widgets.Widgets(section)
    untouched = {key: options["default"] for key, (_, options) in part.inputs().items()}
    assert part.build(untouched) == section()
    assert part.build({}) == section()


def test_training_node_gives_the_defaults(pack: Pack) -> None:
    config = pack.part("trainer.config").from_dict({"base": {"checkpoint": "a"}, "dataset": {"folders": [{"path": "b"}]}})
    for name, sections in (
        ("Training", {"train", "optimizer", "schedule", "save", "sample", "validate"}),
        ("Optimizer", {"optimizer"}),
        ("Schedule", {"schedule"}),
        ("LossNoise", {"loss", "noise"}),
        ("Samples", {"sample"}),
    ):
        training = pack.call(name)[0]
        assert set(training) == sections
        assert all(section == getattr(config, {"validate": "validation"}.get(key, key)) for key, section in training.items())


def test_limits_and_help_come_from_the_section(widgets, config) -> None:
    kind, options = widgets.Widgets(config.AdapterSection).inputs()["rank"]
    field = config.AdapterSection.model_fields["rank"]
    assert (kind, options["default"], options["min"], options["max"]) == ("INT", field.default, 1, 1024)
    assert options["tooltip"] == field.description


def test_not_set(widgets, config) -> None:
    part = widgets.Widgets(config.TrainSection)
    assert part.inputs()["steps"][1]["default"] == part.inputs()["steps"][1]["min"] == 0
    assert part.build({"steps": 0}).steps is None
    assert part.build({"steps": 5}).steps == 5
    rates = widgets.Widgets(config.OptimizerSection)
    assert rates.inputs()["unet_lr"][1]["default"] == -1
    assert "-1 = not set" in rates.inputs()["unet_lr"][1]["tooltip"]
    assert rates.build({"unet_lr": 0.0}).unet_lr == 0
    assert rates.build({"unet_lr": -1.0}).unet_lr is None


def test_not_set_where_negative_numbers_have_a_meaning(widgets, config) -> None:
    part = widgets.Widgets(config.NoiseSection)
    options = part.inputs()["adaptive_scale"][1]
    assert (options["default"], options["min"]) == (0, -10)
    assert part.build({"adaptive_scale": 0.0}).adaptive_scale is None
    assert part.build({"adaptive_scale": -1.0}).adaptive_scale == -1


def test_settings_nodes_form_a_chain(pack: Pack) -> None:
    """In any order; of two nodes that set the same section, the one nearer to Train LoRA wins."""
    noise = pack.call("LossNoise", noise_offset=0.1, min_snr_gamma=5)[0]
    both = pack.call("Training", training=noise, steps=7)[0]
    assert (both["noise"].offset, both["loss"].min_snr_gamma, both["train"].steps) == (0.1, 5, 7)
    assert pack.call("LossNoise", training=pack.call("Training", steps=7)[0], noise_offset=0.1, min_snr_gamma=5)[0] == both
    assert pack.call("LossNoise", training=both)[0]["noise"].offset == 0


def test_single_sections_by_themselves(pack: Pack) -> None:
    chain = pack.call("Training", steps=7, lr=1e-4)[0]
    chain = pack.call("Optimizer", training=chain, optimizer="lion", lr=2e-5, optimizer_args="weight_decay=0.1")[0]
    chain = pack.call("Schedule", training=chain, schedule="polynomial", schedule_power=2.0, warmup=10.0)[0]
    chain = pack.call("Samples", training=chain, prompts="a\nb", every_epochs=0, every_steps=5, width=64, height=96)[0]
    assert (chain["optimizer"].kind, chain["optimizer"].lr, chain["optimizer"].args) == ("lion", 2e-5, {"weight_decay": 0.1})
    assert (chain["schedule"].kind, chain["schedule"].power, chain["schedule"].warmup) == ("polynomial", 2, 10)
    assert [prompt.prompt for prompt in chain["sample"].prompts] == ["a", "b"]
    assert (chain["sample"].every_epochs, chain["sample"].every_steps, chain["sample"].size) == (None, 5, (64, 96))
    assert chain["train"].steps == 7
    assert pack.comfy.texts == [], "what stood at its default may be replaced without a word"


def test_a_node_that_replaces_what_an_earlier_one_set_says_so(pack: Pack) -> None:
    lion = pack.call("Optimizer", optimizer="lion", lr=2e-5)[0]
    both = pack.call("Training", training=lion, lr=2e-5, node_id="9")[0]
    assert both["optimizer"].kind == "adamw"
    ((node, text),) = pack.comfy.texts
    assert node == "9" and text.endswith("connect that one after this one: optimizer.kind 'lion' becomes 'adamw'")


def test_size(widgets, config) -> None:
    part = widgets.Widgets(config.SampleSection, prefix="sample_")
    assert part.build({"sample_width": 0, "sample_height": 0}).size is None
    assert part.build({"sample_width": 64, "sample_height": 96}).size == (64, 96)
    assert {"sample_width", "sample_height"} <= set(part.inputs())


def test_a_list_of_texts_is_one_a_line(widgets, config) -> None:
    part = widgets.Widgets(config.AdapterSection)
    assert part.inputs()["include"][1]["multiline"] and part.inputs()["include"][1]["default"] == ""
    assert part.build({"include": "attn1\n\n  *_to_q \n", "exclude": ""}).include == ("attn1", "*_to_q")
    assert widgets.Widgets(config.CaptionSection).inputs()["extensions"][1]["default"] == ".txt\n.caption"


def test_arguments(widgets, config) -> None:
    part = widgets.Widgets(config.OptimizerSection)
    assert part.build({"args": "weight_decay=0.02 betas=0.95,0.98"}).args == {"weight_decay": 0.02, "betas": [0.95, 0.98]}
    with pytest.raises(Exception, match="args: 'weight_decay' is not written as name=value"):
        part.build({"args": "weight_decay"})


def test_wrong_values_name_the_widget(widgets, config, pack: Pack) -> None:
    with pytest.raises(pack.part("trainer.errors").ConfigError, match="network_rank.*got 0"):
        widgets.Widgets(config.AdapterSection, names={"rank": "network_rank"}).build({"network_rank": 0})


def test_names_do_not_collide(pack: Pack) -> None:
    for name in ("Training", "Optimizer", "Schedule", "LossNoise", "Samples"):
        kind = pack.node(name)
        count = sum(len(part.inputs()) for part in kind.PARTS.values())
        assert len(defaults(kind)) == count
