"""Optimizer arguments as text."""

from __future__ import annotations

import pytest

from trainer.config import OptimizerSection
from trainer.config.arguments import parse_arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("weight_decay=0.02 betas=0.95,0.98", {"weight_decay": 0.02, "betas": [0.95, 0.98]}),
        ("weight_decay=0.02, betas=0.95,0.98,", {"weight_decay": 0.02, "betas": [0.95, 0.98]}),
        ("betas=(0.9,0.99) eps=[1.0,2.0]", {"betas": [0.9, 0.99], "eps": [1.0, 2.0]}),
        ("fused=True beta3=None nesterov=true", {"fused": True, "beta3": None, "nesterov": True}),
        ("name=a=b", {"name": "a=b"}),
        ("eps=1e-8", {"eps": "1e-8"}),  # YAML's reading; the optimizer's table makes it a number
    ],
)
def test_text_and_mapping_mean_the_same(text, expected):
    assert parse_arguments(text) == parse_arguments(expected) == expected
    assert OptimizerSection(args=text).args == expected


@pytest.mark.parametrize("text", ["weight_decay", "=1", "a=", "a=1 a=2", "a=[1"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="is not written as|given twice|cannot be read"):
        parse_arguments(text)
