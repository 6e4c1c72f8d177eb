"""Advice from figures made by hand, of which each shows one thing; and the measuring itself on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from trainer import train
from trainer.config import from_dict
from trainer.errors import ConfigError, OutputError
from trainer.evaluate.advice import MEANINGS, NEXT_TIME, give_advice
from trainer.evaluate.advise import advise, draw_evidence
from trainer.evaluate.fonts import find_font
from trainer.evaluate.probes import ATTRIBUTES, Evidence, Probe, absent, gather_evidence, shared_words
from trainer.events import CacheProgress

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
PICTURES = np.array([0.9, 1.0, 1.1, 1.05]) * 0.1  # the model's own losses


def file(gain: float, best: float = 1.0, learned: float | None = None, survival: float = 0.9, change: float = 0.1, seed: int = 0):
    """Probes whose held-out loss is lowest, by `gain`, at strength `best`; a parabola through 0, with a little noise per picture."""
    random = np.random.default_rng(seed)
    probes = []
    for strength in STRENGTHS:
        share = gain * (1 - (strength / best - 1) ** 2) if gain > 0 else gain * strength
        held_out = PICTURES * (1 - share + random.normal(0, 0.002, 4))
        training = PICTURES * (1 - (gain if learned is None else learned) * min(strength, 1.0))
        reaction = 1 - (1 - survival) * strength
        probes.append(Probe(strength, tuple(held_out), tuple(training), change * strength, reaction))
    return tuple(probes)


def evidence(*files, held_out: bool = True) -> Evidence:
    base = Probe(0, tuple(PICTURES) if held_out else (), tuple(PICTURES), 0, 1.0)
    return Evidence(base, {Path(f"cat-{number:06d}.safetensors"): probes for number, probes in enumerate(files, 1)}, "cat", ("in the sea",))


def words(advice) -> list[str]:
    return [verdict.verdict for verdict in advice.verdicts]


@pytest.mark.parametrize("seed", range(5))
class TestCases:
    """The cases that a person meets, each with five draws of the noise."""

    def test_good(self, seed):
        advice = give_advice(evidence(file(0.10, 1.4, seed=seed), file(0.20, seed=seed + 10), file(0.201, seed=seed + 20)))
        assert words(advice) == ["under-trained", "good", "good"]
        assert (advice.diagnosis, advice.strength) == ("good", 1.0)
        assert advice.file == Path("cat-000002.safetensors"), "the last two cannot be told apart: the earlier one"
        assert advice.strengths == (0.75, 1.0)

    def test_too_few_steps(self, seed):
        advice = give_advice(evidence(file(0.03, 1.5, change=0.015, seed=seed), file(0.08, 2, seed=seed)))
        assert words(advice) == ["no effect", "under-trained"]
        assert advice.diagnosis == "too few steps"
        assert advice.lines()[0].startswith("Use cat-000002 at strength 1") and advice.strength == 1.5

    def test_far_too_many_steps(self, seed):
        files = (
            file(0.2, 0.9, seed=seed),
            file(0.15, 0.5, learned=0.5, survival=0.4, seed=seed),
            file(-0.2, learned=0.8, survival=0.1, seed=seed),
        )
        advice = give_advice(evidence(*files))
        assert words(advice) == ["good", "over-trained", "over-trained"]
        assert advice.diagnosis == "too many steps" and advice.file == Path("cat-000001.safetensors")

    def test_rate_too_high(self, seed):
        advice = give_advice(evidence(*(file(-3, learned=-3, change=3, seed=seed + number) for number in range(3))))
        assert words(advice) == ["damaged"] * 3
        assert (advice.diagnosis, advice.file) == ("rate too high", None)
        assert advice.lines()[0] == "No file can be recommended."

    def test_stiff(self, seed):
        advice = give_advice(evidence(file(0.19, survival=0.9, seed=seed), file(0.2, survival=0.3, seed=seed)))
        assert words(advice) == ["good", "stiff"] and advice.file == Path("cat-000001.safetensors")
        assert "30% of an attribute survives" in advice.lines()[2]
        only = give_advice(evidence(file(0.2, survival=0.3, seed=seed)))
        assert only.strengths and only.strengths[1] <= 0.75, "where it is stiff, a lower strength is advised"


def measured(*gains: float):
    """Probes at the usual strengths whose held-out losses of all pictures are lower by these shares."""
    return tuple(Probe(s, tuple(PICTURES * (1 - gain)), tuple(PICTURES * 0.7), 0.1, 0.9) for s, gain in zip(STRENGTHS, gains, strict=True))


def test_a_run_that_is_too_short_though_its_files_work_at_full_strength():
    """As two epochs of the demo: at strength 1 little is missing of the best gain, which lies at 1.4 and not at 1."""
    first, second = measured(0.07, 0.12, 0.155, 0.178, 0.19, 0.189), measured(0.07, 0.13, 0.164, 0.186, 0.199, 0.2)
    advice = give_advice(evidence(first, second))
    assert words(advice) == ["under-trained", "under-trained"] and advice.diagnosis == "too few steps"
    assert advice.file == Path("cat-000002.safetensors"), "of files that learned too little, the one that learned most"


def test_of_strengths_that_gain_almost_the_same_the_least():
    """As file 6 of the demo: 1.25 gains 4 % more than 1, and its pictures are worse."""
    advice = give_advice(evidence(measured(0.096, 0.174, 0.235, 0.276, 0.288, 0.265)))
    assert (advice.strength, advice.strengths) == (1.0, (1.0, 1.25))
    assert advice.lines()[0] == "Use cat-000001 at strength 1 to 1.25; begin with 1."


def test_a_file_that_is_past_its_best_though_it_helps_at_full_strength():
    advice = give_advice(evidence(measured(0.06, 0.1, 0.1, 0.06, -0.02, -0.1)))
    assert words(advice) == ["over-trained"] and advice.diagnosis == "too many steps"


@pytest.mark.parametrize(
    ("gains", "strength"),
    [
        ((0.06, 0.10, 0.12, 0.16, 0.12, 0.06), 1.0),
        ((0.02, 0.06, 0.10, 0.16, 0.14, 0.06), 1 + 0.125 * (0.10 - 0.14) / (0.10 - 2 * 0.16 + 0.14)),
        ((0.20, 0.16, 0.10, 0.00, -0.1, -0.2), 0.25 + 0.125 * (0 - 0.16) / (0 - 2 * 0.20 + 0.16)),
        ((0.02, 0.04, 0.06, 0.08, 0.10, 0.12), 1.5),
    ],
)
def test_best_strength(gains, strength):
    """The top of the parabola through (-h, a), (0, b), (h, c) lies at h / 2 * (a - c) / (a - 2 b + c)."""
    (verdict,) = give_advice(evidence(measured(*gains))).verdicts
    assert verdict.best_strength == pytest.approx(strength)


def test_at_no_strength_better_than_the_model_alone():
    advice = give_advice(evidence(measured(*[-0.001 * s for s in STRENGTHS])))
    assert words(advice) == ["over-trained"] and advice.file is None


def test_no_effect():
    advice = give_advice(evidence(file(0.001, change=0.001)))
    assert words(advice) == ["no effect"] and advice.diagnosis == "too few steps"


def test_without_held_out_pictures_there_is_not_enough_evidence():
    advice = give_advice(evidence(file(0.2), file(0.2, survival=0.2), file(0.2, change=0.001), file(0.2, learned=-1), held_out=False))
    assert words(advice) == ["unknown", "stiff", "no effect", "damaged"]
    assert (advice.file, advice.diagnosis) == (None, "not enough evidence")
    assert "Hold out pictures" in advice.lines()[-1]


def test_answers_that_are_not_finite():
    broken = tuple(Probe(s, (float("nan"),) * 4, (float("nan"),) * 4, float("nan"), None) for s in STRENGTHS)
    advice = give_advice(evidence(broken, broken))
    assert words(advice) == ["damaged"] * 2 and advice.diagnosis == "rate too high"


def test_every_word_is_explained():
    assert all(text for text in (*MEANINGS.values(), *NEXT_TIME.values()))


def test_trigger_and_absent_attributes():
    captions = ["zibu on a blue background", "a small zibu in the desert", "Zibu, at night"]
    assert shared_words(captions) == "zibu"
    assert shared_words(["a sks cat, sitting", "the sks cat asleep"]) == "sks cat"
    assert shared_words([]) == ""
    left_out = set(ATTRIBUTES) - set(absent(ATTRIBUTES, captions))
    assert left_out == {"in the desert", "at night"}


@pytest.fixture(scope="module")
def run(base: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory):
    """A tiny run with two files and three held-out pictures."""
    folder = tmp_path_factory.mktemp("run")
    held_out = tiny.write_pictures(folder / "held_out", sizes=[(80, 64)] * 3)
    config = tiny.job(
        base, pictures, folder, train={"steps": 8, "precision": "fp32", "device": "cpu"},
        validate={"folder": str(held_out), "every_epochs": None, "every_steps": 4},
        save={"dir": str(folder / "out"), "name": "tiny", "every_epochs": None, "every_steps": 4}, sample={"steps": 1, "cfg": 1},
    )  # fmt: skip
    return config, train(config)


def test_the_measured_loss_is_that_of_validation(run):
    """At strength 1 and 0 it is what the run itself logged of these files and of the base."""
    config, result = run
    found = gather_evidence(config, result.files, (1.0, 0.5), attributes=("red",))
    assert found is not None and list(found.files) == list(result.files)
    logged = dict(result.validation)
    assert np.mean(found.base.held_out) == pytest.approx(logged[0], rel=1e-5)
    full = found.files[result.files[-1]][-1]
    assert full.strength == 1.0 and np.mean(full.held_out) == pytest.approx(logged[max(logged)], rel=1e-3)
    assert len(full.held_out) == 3 and len(full.training) == 5
    half = found.files[result.files[-1]][0]
    assert 0 < half.change < full.change
    assert found.base.survival == 1 and found.attributes == ("red",)


def test_the_trigger_is_what_the_learned_pictures_share(run, tmp_path):
    """With the prefix that is trained with; regularisation pictures show the class without it."""
    config, result = run
    ours, others = tiny.write_pictures(tmp_path / "ours"), tiny.write_pictures(tmp_path / "others")
    for file in others.glob("*.txt"):
        file.write_text("a dog", encoding="utf-8")
    values = config.model_dump()
    values["dataset"]["folders"] = [{"path": str(ours)}, {"path": str(others), "regularization": True}]
    values["dataset"]["captions"]["prefix"] = "sks dog, "

    found = gather_evidence(from_dict(values), result.files[:1], (1.0,), attributes=("red",))

    assert found is not None and found.trigger == "sks dog colour plain flat"


def test_a_stop_while_pictures_are_encoded_ends_it(job):
    seen = []

    def stop() -> bool:
        return any(isinstance(event, CacheProgress) for event in seen)

    assert gather_evidence(job(), [], (1.0,), listen=seen.append, stop=stop) is None
    assert stop()


def test_a_lora_without_text_reaction_lets_nothing_survive(run, tmp_path):
    """Cross-attention that gives nothing: the words cannot act, so survival is 0; the doubled LoRA that undoes nothing leaves 1."""
    from safetensors.torch import save_file

    config, _ = run
    family, model = tiny.load_model(Path(config.base.checkpoint))
    dead, none = {}, {}
    for target in family.adapter_targets(model):
        weight = target.module.weight.detach()
        if "attn2_to_out" in target.key:
            dead |= {f"{target.key}.lora_up.weight": -weight.flatten(1), f"{target.key}.lora_down.weight": torch.eye(weight.shape[1])}
            none |= {
                f"{target.key}.lora_up.weight": torch.zeros(len(weight), 1),
                f"{target.key}.lora_down.weight": torch.ones(1, weight.shape[1]),
            }
    for name, tensors in (("dead", dead), ("none", none)):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors")
    files = [tmp_path / "dead.safetensors", tmp_path / "none.safetensors"]
    found = gather_evidence(config, files, (1.0,), attributes=("red", "blue"), trigger="colour")
    assert found is not None
    assert found.files[files[0]][0].survival == pytest.approx(0, abs=1e-4)
    same = found.files[files[1]][0]
    assert same.survival == pytest.approx(1, abs=1e-4) and same.change == pytest.approx(0, abs=1e-5)


@pytest.mark.skipif(find_font("红") == find_font("a"), reason="this system has no font with Chinese letters")
def test_names_of_files_are_drawn_in_their_own_letters(recwarn):
    found = evidence(file(0.2), file(0.3))
    files = {Path(f"红猫-{number}.safetensors"): probes for number, probes in enumerate(found.files.values())}
    draw_evidence(replace(found, files=files))
    assert not [str(warning.message) for warning in recwarn if "missing from font" in str(warning.message)]


def test_advice_writes_what_it_rests_on(run, tmp_path):
    config, result = run
    found = advise(config, tmp_path, strengths=(0.5, 1.0), attributes=("red", "绿色"))
    assert found is not None
    assert [path.name for path in found.files] == ["advice.txt", "advice.csv", "advice.png", "sanity.png"]
    assert (tmp_path / "advice.txt").read_text(encoding="utf-8").splitlines() == found.advice.lines()
    assert len((tmp_path / "advice.csv").read_text().splitlines()) == 1 + 1 + 2 * 2
    assert len(list((tmp_path / "cells").glob("*.png"))) == 2 * 3, "two words, each with two files and without"
    assert advise(config, tmp_path, stop=lambda: True) is None


def test_a_run_without_files(job, tmp_path):
    with pytest.raises(ConfigError, match="has saved no LoRA"):
        advise(job(), tmp_path)
    with pytest.raises(ConfigError, match="at least one number above 0"):
        advise(job(), tmp_path, loras=[tmp_path], strengths=(0,))


def test_a_folder_that_cannot_be_made_is_said_before_the_model_loads(job, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="out: .*taken could not be written"):
        advise(job(base={"checkpoint": "missing"}), tmp_path / "taken", loras=[tmp_path / "a.safetensors"])
