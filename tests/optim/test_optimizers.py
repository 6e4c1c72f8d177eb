from __future__ import annotations

import pytest
import torch

from trainer.config import OptimizerSection
from trainer.errors import ConfigError
from trainer.optim import OPTIMIZERS, build_averaging, build_optimizer, check_optimizer, optimizer_warnings
from trainer.optim.optimizers import OptimizerRow

PACKAGES = {
    "adamw8bit": "bitsandbytes",
    "paged_adamw8bit": "bitsandbytes",
    "lion8bit": "bitsandbytes",
    "sgd8bit": "bitsandbytes",
    "lion": "lion_pytorch",
    "adafactor": "transformers",
    "prodigy": "prodigyopt",
    "adamw_schedulefree": "schedulefree",
}
RATES = {"lion": 0.02, "lion8bit": 0.02, "sgd": 0.1, "prodigy": 1.0}  # of the others 0.05
STEPS = {"prodigy": 150}  # it starts at a millionth of the rate; the others get 30


def weights() -> list[torch.nn.Parameter]:
    """One tensor above bitsandbytes' 4096-element limit for 8-bit states and one below."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in ((64, 96), (7,))]


def build(kind: str, parameters: list[torch.nn.Parameter], **args) -> torch.optim.Optimizer:
    groups = [{"params": [p], "name": f"part{i}", "lr": RATES.get(kind, 0.05)} for i, p in enumerate(parameters)]
    section = OptimizerSection(kind=kind, args=args)
    optimizer = build_optimizer(section, groups)
    build_averaging(section, None, optimizer)
    return optimizer


def quadratic_step(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> float:
    loss = sum((p**2).sum() for p in parameters) / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@pytest.fixture(params=sorted(OPTIMIZERS))
def kind(request) -> str:
    if request.param in PACKAGES:
        pytest.importorskip(PACKAGES[request.param])
    return request.param


def test_every_row_reduces_a_quadratic(kind):
    parameters = weights()
    optimizer = build(kind, parameters)
    losses = [quadratic_step(optimizer, parameters) for _ in range(STEPS.get(kind, 30))]
    assert losses[-1] < 0.5 * losses[0]
    assert [group["name"] for group in optimizer.param_groups] == ["part0", "part1"]
    assert all(group["lr"] == RATES.get(kind, 0.05) for group in optimizer.param_groups)


def test_every_row_continues_bit_exactly_from_its_saved_state(kind, tmp_path):
    straight = weights()
    optimizer = build(kind, straight)
    for _ in range(3):
        quadratic_step(optimizer, straight)
    torch.save({"weights": [p.detach() for p in straight], "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    for _ in range(3):
        quadratic_step(optimizer, straight)

    resumed = weights()
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    with torch.no_grad():
        for parameter, value in zip(resumed, saved["weights"], strict=True):
            parameter.copy_(value)
    optimizer = build(kind, resumed)
    optimizer.load_state_dict(saved["optimizer"])
    for _ in range(3):
        quadratic_step(optimizer, resumed)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_adamw_is_torchs():
    ours, theirs = weights(), weights()
    built = build("adamw", ours, weight_decay=0.02, betas=[0.8, 0.95])
    plain = torch.optim.AdamW(theirs, lr=0.05, weight_decay=0.02, betas=(0.8, 0.95))
    for _ in range(10):
        quadratic_step(built, ours)
        quadratic_step(plain, theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_large_tensors_really_have_8bit_states():
    pytest.importorskip("bitsandbytes")
    parameters = weights()
    optimizer = build("adamw8bit", parameters)
    quadratic_step(optimizer, parameters)
    assert optimizer.state[parameters[0]]["state1"].dtype == torch.uint8
    assert optimizer.state[parameters[1]]["state1"].dtype == torch.float32


def test_the_callers_groups_stay_as_they_were():
    groups = [{"params": weights(), "name": "unet", "lr": 0.5}]
    build_optimizer(OptimizerSection(), groups)
    assert set(groups[0]) == {"params", "name", "lr"}


def test_a_speed_choice_of_the_user_is_kept():
    assert build("adamw", weights(), foreach=False).defaults["foreach"] is False
    assert not build("adamw", weights(), foreach=True).defaults["fused"]
    assert build("adamw", weights(), fused=False).defaults["fused"] is False


def test_lists_become_tuples_and_numeric_texts_numbers():
    optimizer = build("adamw", weights(), betas=[0.9, 0.99], weight_decay="1e-2")
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    assert optimizer.defaults["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"kind": "adamv"}, ["optimizer.kind", "'adamv'", "did you mean 'adamw'", "adamw8bit", "lion", "sgd"]),
        ({"kind": "zzz"}, ["'zzz' is unknown. Known: adamw"]),
        ({"args": {"weight_decai": 0.1}}, ["optimizer.args.weight_decai", "'weight_decay'", "no argument of adamw"]),
        ({"args": {"weight_decay": "much"}}, ["optimizer.args.weight_decay", "a number", "'much'"]),
        ({"args": {"weight_decay": True}}, ["optimizer.args.weight_decay", "a number", "True"]),
        ({"args": {"betas": [0.9]}}, ["optimizer.args.betas", "a list of 2 numbers", "[0.9]"]),
        ({"args": {"betas": [0.9, "x"]}}, ["optimizer.args.betas", "a number"]),
        ({"args": {"amsgrad": 1}}, ["optimizer.args.amsgrad", "true or false"]),
        ({"args": {"fused": "yes"}}, ["optimizer.args.fused", "true, false or null"]),
        ({"args": {"lr": 1e-3}}, ["optimizer.args.lr", "set optimizer.lr instead"]),
        ({"args": {"params": []}}, ["optimizer.args.params"]),
        ({"args": {"betas": [0.9, 1.5]}}, ["adamw refuses", "betas=[0.9, 1.5]", "Invalid beta"]),
        ({"args": {"fused": True, "foreach": True}}, ["adamw refuses", "fused"]),
        ({"kind": "sgd", "args": {"nesterov": True}}, ["sgd refuses", "Nesterov"]),
    ],
)
def test_a_mistake_is_one_sentence_with_field_value_and_remedy(section, expected):
    problems = check_optimizer(OptimizerSection(**section))
    assert len(problems) == 1
    for text in expected:
        assert text in problems[0]
    with pytest.raises(ConfigError, match="optimizer"):
        build_optimizer(OptimizerSection(**section), [{"params": weights(), "name": "unet", "lr": 1e-4}])


def test_all_mistakes_are_reported_at_once():
    assert len(check_optimizer(OptimizerSection(args={"a": 1, "weight_decay": "x", "lr": 1}))) == 3


def test_good_sections_have_no_problems(kind):
    assert check_optimizer(OptimizerSection(kind=kind)) == []


def test_a_missing_package_names_what_to_install(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "absent", OptimizerRow("surely_not_installed.Optimizer", "surely-not-installed", 0))
    (problem,) = check_optimizer(OptimizerSection(kind="absent"))
    assert "is not installed" in problem
    assert 'pip install "surely-not-installed"' in problem


def test_lion_refuses_a_zero_rate_in_words():
    pytest.importorskip("lion_pytorch")
    (problem,) = check_optimizer(OptimizerSection(kind="lion", lr=0))
    assert "lion refuses lr=0.0" in problem


def test_adafactor_follows_the_rate_and_not_the_size_of_the_weights():
    """Up matrices are zero at the start: with the scale of the parameters they would move by a thousandth of the rate."""
    weight = torch.nn.Parameter(torch.zeros(8, 8))
    optimizer = build("adafactor", [weight])
    weight.grad = torch.ones(8, 8)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((8, 8), -0.05), rtol=1e-5, atol=0)


@pytest.mark.parametrize("extra", [{"unet_lr": 0.5}, {"text_encoder_lr": 2.0}, {"lora_plus": 16.0}])
def test_prodigy_has_one_rate(extra):
    pytest.importorskip("prodigyopt")
    (problem,) = check_optimizer(OptimizerSection(kind="prodigy", lr=1.0, **extra))
    assert "prodigy finds one rate for all parts" in problem
    assert check_optimizer(OptimizerSection(kind="prodigy", lr=1.0)) == []


def test_warnings_of_optimizers_that_work_otherwise_than_expected():
    def warned(kind: str, lr: float = 1.0, schedule: str = "constant", device: str = "cuda") -> list[str]:
        return optimizer_warnings(OptimizerSection(kind=kind, lr=lr), schedule, device)

    assert "set it to 1" in warned("prodigy", 1e-4)[0] and warned("prodigy") == []
    assert "use constant" in warned("adamw_schedulefree", schedule="cosine")[0]
    assert warned("adamw_schedulefree", schedule="constant_with_warmup") == warned("adamw", 1e-4, "cosine", "cpu") == []
    assert "on the CPU" in warned("paged_adamw8bit", device="cpu")[0] and warned("paged_adamw8bit") == []
