"""The advice on real trainings of the demo base: too few steps, far too many, a rate that is too high, a good run.

What was measured of them is recorded in data/advice_cases.json by `python benchmarks/advice_cases.py --record`; the long form trains.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.advice_cases import CASES, SEEDS, config_of, is_right, measured
from trainer.console import ConsoleListener
from trainer.evaluate.advice import give_advice
from trainer.evaluate.probes import Evidence

RECORDED = json.loads((Path(__file__).parent / "data" / "advice_cases.json").read_text(encoding="utf-8"))
EVERY = [(name, seed) for name in CASES for seed in SEEDS]


def test_every_case_is_recorded():
    assert {key.split("-")[0] for key in RECORDED} == set(CASES)


@pytest.mark.parametrize("key", RECORDED)
def test_recorded(key):
    evidence = Evidence.from_dict(RECORDED[key])
    assert Evidence.from_dict(json.loads(json.dumps(evidence.as_dict()))) == evidence
    advice = give_advice(evidence)
    assert is_right(CASES[key.split("-")[0]], advice), "\n".join(advice.lines())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), EVERY)
def test_trained(name, seed, tmp_path):
    """About two minutes each on one core."""
    advice = give_advice(measured(name, seed, tmp_path, ConsoleListener()))
    assert is_right(CASES[name], advice), "\n".join(advice.lines())


def test_cases_differ_from_the_demo_only_as_they_say(tmp_path):
    good = config_of("good", 1, tmp_path).as_dict()
    few = config_of("few", 1, tmp_path).as_dict()
    assert {section for section in good if good[section] != few[section]} == {"train", "save"}
    many = config_of("many", 2, tmp_path)
    assert len(list(Path(many.dataset.folders[0].path).rglob("*.png"))) == 3 and many.train.seed == 2
