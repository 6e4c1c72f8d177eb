"""The loss of whole batches: what each setting changes, and that it changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch

from trainer import check, train
from trainer.config import LossSection, NoiseSection
from trainer.diffusion.objective import NoiseSchedule
from trainer.errors import ConfigError, ResumeMismatch
from trainer.events import Validated, Warned
from trainer.feed import Batch
from trainer.objective import PLAIN, batch_loss, check_objective, draw_noise, make_objective
from trainer.seeds import derive

SEEDS = (3, 11, 2**62)


class Echo:
    """A family whose model answers a fixed picture; it remembers what it was shown."""

    def __init__(self, answer: float = 0.0):
        self.answer, self.seen = answer, []

    def predict(self, _model, noisy, timesteps, _conditioning):
        self.seen.append((noisy, timesteps))
        return torch.full_like(noisy, self.answer)


def model(prediction: str = "epsilon", alphas: torch.Tensor | None = None) -> SimpleNamespace:
    schedule = NoiseSchedule.scaled_linear(prediction=prediction) if alphas is None else NoiseSchedule(alphas, prediction)
    return SimpleNamespace(schedule=schedule, device=torch.device("cpu"))


def batch(seeds=SEEDS, **more) -> Batch:
    latents = torch.stack([torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return Batch(("",) * len(seeds), [""] * len(seeds), latents, None, {}, tuple(seeds), **more)


def make(kind: SimpleNamespace, loss=None, noise=None):
    return make_objective(LossSection(**(loss or {})), NoiseSection(**(noise or {})), kind.schedule)


def plain_noise(seeds=SEEDS) -> torch.Tensor:
    return torch.stack([torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(derive(seed, "noise"))) for seed in seeds])


def drawn_timesteps(seeds=SEEDS) -> torch.Tensor:
    return torch.tensor([derive(seed, "timestep") % 1000 for seed in seeds])


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("zero_terminal", [False, True])
def test_noise_target_and_loss_are_those_of_diffusers(prediction, zero_terminal):
    from diffusers import DDPMScheduler

    options = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "rescale_betas_zero_snr": zero_terminal}
    library = DDPMScheduler(**options)
    timesteps, one = torch.tensor([999, 500, 0]), batch()
    echo, noise = Echo(0.3), plain_noise()
    loss = batch_loss(echo, model(prediction, library.alphas_cumprod.double()), one, timesteps=timesteps)
    torch.testing.assert_close(echo.seen[0][0], library.add_noise(one.latents, noise, timesteps), rtol=1e-5, atol=1e-5)
    target = noise if prediction == "epsilon" else library.get_velocity(one.latents, noise, timesteps)
    torch.testing.assert_close(loss, (0.3 - target).square().mean((1, 2, 3)), rtol=1e-5, atol=1e-5)


def test_with_everything_off_nothing_has_changed_by_a_bit():
    """Noise, timestep and loss as they were defined before there were any settings."""
    kind, one, echo = model(), batch(), Echo(0.3)
    expected = (0.3 - plain_noise()).square().flatten(1).mean(1)
    for objective in (PLAIN, make(kind)):
        assert torch.equal(batch_loss(echo, kind, one, objective), expected)
        noisy, timesteps = echo.seen[-1]
        assert torch.equal(timesteps, drawn_timesteps())
        assert torch.equal(noisy, kind.schedule.add_noise(one.latents, plain_noise(), drawn_timesteps()))


NOISES = [
    {"offset": 0.1},
    {"offset": 0.1, "offset_random": True},
    {"adaptive_scale": 0.2},
    {"multires_iterations": 6},
    {"ip_gamma": 0.1},
    {"ip_gamma": 0.1, "ip_gamma_random": True},
    {"offset": 0.1, "adaptive_scale": -0.05, "multires_iterations": 3, "multires_discount": 0.8, "ip_gamma": 0.2},
]


@pytest.mark.parametrize("settings", NOISES)
def test_the_noise_of_a_sample_does_not_depend_on_its_neighbours(settings):
    section, both = NoiseSection(**settings), batch()
    together = draw_noise(both.latents, SEEDS, section)
    for place, seed in enumerate(SEEDS):
        alone = draw_noise(both.latents[place : place + 1], (seed,), section)
        for whole, single in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[place], single[0], rtol=0, atol=1e-6)


def test_offset_moves_only_the_means():
    noise, shown = draw_noise(batch().latents, SEEDS, NoiseSection(offset=0.5))
    plain = plain_noise()
    assert noise is shown
    moved = (noise - plain).mean((2, 3))
    assert float((noise - plain).std((2, 3)).max()) < 1e-6 and 0.2 < float(moved.std()) < 0.8
    half = (draw_noise(batch().latents, SEEDS, NoiseSection(offset=0.25))[0] - plain).mean((2, 3))
    torch.testing.assert_close(2 * half, moved, atol=1e-5, rtol=1e-5)


def test_random_offset_has_a_strength_of_its_own_for_each_sample():
    """Uniform between 0 and the strength: over many samples its mean is half of it."""
    seeds = tuple(range(400))
    latents = torch.zeros(400, 4, 2, 2)
    full, varied = (draw_noise(latents, seeds, NoiseSection(offset=0.5, offset_random=random))[0] for random in (False, True))
    plain = draw_noise(latents, seeds, NoiseSection())[0]
    share = (varied - plain)[:, 0, 0, 0] / (full - plain)[:, 0, 0, 0]
    assert 0 <= float(share.min()) < 0.02 and 0.98 < float(share.max()) <= 1
    assert float(share.mean()) == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(share, (varied - plain)[:, 1, 1, 1] / (full - plain)[:, 1, 1, 1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("settings", [{"offset": 1.0}, {"ip_gamma": 1.0}, {"multires_iterations": 1, "multires_discount": 1.0}])
def test_what_is_added_has_nothing_to_do_with_the_noise(settings):
    """Numbers of their own: no number of the one correlates with any number of the other."""
    seeds, latents = tuple(range(400)), torch.zeros(400, 4, 4, 4)
    noise = draw_noise(latents, seeds, NoiseSection())[0]
    changed = draw_noise(latents, seeds, NoiseSection(**settings))[1]
    added = changed * 2**0.5 - noise if "multires_iterations" in settings else changed - noise  # scaled back from a variance of 2
    both = torch.corrcoef(torch.cat([noise.flatten(1), added.flatten(1)], dim=1).t())
    assert float(both[:64, 64:].abs().max()) < 0.3  # 6 standard errors


def test_strengths_of_offset_and_input_noise_are_drawn_apart():
    seeds, latents = tuple(range(400)), torch.zeros(400, 4, 2, 2)
    settings = {"offset": 0.5, "ip_gamma": 0.5}
    full, varied = (draw_noise(latents, seeds, NoiseSection(**settings, offset_random=on, ip_gamma_random=on)) for on in (False, True))
    plain = draw_noise(latents, seeds, NoiseSection())[0]
    offset = (varied[0] - plain)[:, 0, 0, 0] / (full[0] - plain)[:, 0, 0, 0]
    gamma = (varied[1] - varied[0])[:, 0, 0, 0] / (full[1] - full[0])[:, 0, 0, 0]
    assert abs(float(torch.corrcoef(torch.stack([offset, gamma]))[0, 1])) < 0.3


def test_the_adaptive_scale_acts_without_an_offset_too():
    """The offset's strength is then the scale times the mean of each channel alone: 0.1 · 3 of that of an offset of 1."""
    seeds, latents = SEEDS, torch.full_like(batch().latents, 3.0)
    plain, full, adaptive = (draw_noise(latents, seeds, NoiseSection(**s))[0] for s in ({}, {"offset": 1.0}, {"adaptive_scale": 0.1}))
    torch.testing.assert_close(adaptive - plain, 0.3 * (full - plain), atol=1e-5, rtol=1e-4)


def test_input_perturbation_leaves_the_target_alone():
    noise, shown = draw_noise(batch().latents, SEEDS, NoiseSection(ip_gamma=0.1))
    assert torch.equal(noise, plain_noise())
    assert float((shown - noise).std()) == pytest.approx(0.1, rel=0.15)
    kind, echo = model("v"), Echo()
    perturbed = batch_loss(echo, kind, batch(), make(kind, noise={"ip_gamma": 0.1}))
    plain = batch_loss(echo, kind, batch(), make(kind))
    assert torch.equal(perturbed, plain)  # the answer is fixed, so only the target counts
    assert not torch.equal(echo.seen[0][0], echo.seen[1][0])


@pytest.mark.parametrize(("first", "end", "last"), [(0, 1000, 999), (200, 300, 299), (999, 1000, 999), (7, 7, 7)])
def test_timesteps_are_uniform_over_their_range(first, end, last):
    seeds, echo, kind = tuple(range(3000)), Echo(), model()
    flat = Batch((), [], torch.zeros(3000, 1, 1, 1), None, {}, seeds)
    batch_loss(echo, kind, flat, make(kind, noise={"min_timestep": first, "max_timestep": end}))
    drawn = echo.seen[0][1]
    assert first <= int(drawn.min()) <= first + 2 and last - 2 <= int(drawn.max()) <= last
    assert float(drawn.double().mean()) == pytest.approx((first + last) / 2, abs=(last - first) / 40)


def test_the_default_range_is_all_of_a_shorter_or_longer_schedule():
    """1000 stands for the end; another number is meant as it is."""
    for length in (500, 1500):
        kind = SimpleNamespace(schedule=NoiseSchedule.scaled_linear(steps=length), device=torch.device("cpu"))
        assert make(kind).timesteps == (0, length)
        assert make(kind, noise={"min_timestep": 100}).timesteps == (100, length)
        assert make(kind, noise={"max_timestep": 400}).timesteps == (0, 400)
        with pytest.raises(ConfigError, match=rf"noise\.max_timestep: 1600 is too high for the model's {length} timesteps; lower it"):
            make(kind, noise={"max_timestep": 1600})


@pytest.mark.parametrize(
    ("settings", "prediction", "weight"),
    [
        ({"min_snr_gamma": 5}, "epsilon", lambda snr: min(snr, 5) / snr),
        ({"min_snr_gamma": 5}, "v", lambda snr: min(snr, 5) / (snr + 1)),
        ({"debiased": True}, "epsilon", lambda snr: 1 / min(snr, 1000) ** 0.5),
        ({"scale_v_pred": True, "min_snr_gamma": 1}, "v", lambda snr: snr / (snr + 1) * min(snr, 1) / (snr + 1)),
        ({"v_pred_like": 0.5}, "epsilon", lambda snr: 1 + 0.5 * (snr + 1) / snr),
    ],
)
def test_weightings_multiply_the_loss_of_each_sample(settings, prediction, weight):
    kind, echo = model(prediction), Echo(0.3)
    plain = batch_loss(echo, kind, batch())
    weighted = batch_loss(echo, kind, batch(), make(kind, settings))
    ratios = kind.schedule.snr[drawn_timesteps()].tolist()
    assert (weighted / plain).tolist() == pytest.approx([weight(snr) for snr in ratios], rel=1e-5)
    assert torch.equal(echo.seen[0][0], echo.seen[1][0])


@pytest.mark.parametrize("kind", ["l1", "huber", "smooth_l1"])
def test_other_losses_change_the_error_alone(kind):
    own, echo = model(), Echo(0.3)
    loss = batch_loss(echo, own, batch(), make(own, {"kind": kind, "huber_schedule": "exponential"}))
    d, c = 0.3 - plain_noise(), 0.1 ** (drawn_timesteps() / 1000).view(-1, 1, 1, 1)
    root = (d.square() + c.square()).sqrt() - c
    expected = {"l1": d.abs(), "huber": 2 * c * root, "smooth_l1": 2 * root}[kind].mean((1, 2, 3))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    batch_loss(echo, own, batch())
    assert torch.equal(echo.seen[0][0], echo.seen[1][0])


def test_masks_and_weights_act_on_their_own_sample():
    kind, echo = model(), Echo(0.3)
    masks = torch.ones(3, 1, 8, 6)
    masks[1, :, 4:], masks[2] = 0, 0
    plain = batch_loss(echo, kind, batch())
    masked = batch_loss(echo, kind, batch(masks=masks))
    half = (0.3 - plain_noise())[1, :, :4].square().mean()
    torch.testing.assert_close(masked, torch.stack([plain[0], half, torch.zeros(())]), rtol=1e-5, atol=1e-6)
    assert torch.equal(batch_loss(echo, kind, batch(weights=(1.0, 0.25, 0.0))), plain * torch.tensor([1, 0.25, 0]))
    both = batch_loss(echo, kind, batch(weights=(1.0, 0.25, 0.0)), make(kind, {"min_snr_gamma": 0.5}))
    alone = batch_loss(echo, kind, batch(), make(kind, {"min_snr_gamma": 0.5}))
    torch.testing.assert_close(both, alone * torch.tensor([1, 0.25, 0]))


@pytest.mark.parametrize(
    ("loss", "noise", "prediction", "sentence"),
    [
        ({"scale_v_pred": True}, {}, "epsilon", "loss.scale_v_pred: True is for models that predict v, but this one predicts epsilon"),
        ({"v_pred_like": 0.1}, {}, "v", "loss.v_pred_like: 0.1 is for models that predict epsilon, but this one predicts v"),
        ({}, {"max_timestep": 1001}, "v", "noise.max_timestep: 1001 is too high for the model's 1000 timesteps; lower it"),
        ({}, {"min_timestep": 1000, "max_timestep": 1000}, "v", "noise.min_timestep: 1000 is too high for the model's 1000 timesteps"),
    ],
)
def test_what_does_not_suit_the_model_is_refused(loss, noise, prediction, sentence):
    with pytest.raises(ConfigError, match=sentence.replace(".", r"\.")):
        make(model(prediction), loss, noise)


def test_mistakes_that_need_no_model():
    problems, _ = check_objective(LossSection(kind="l3"), NoiseSection(min_timestep=500, max_timestep=400))
    assert problems == [
        "loss.kind: 'l3' is unknown; known: l2, l1, huber, smooth_l1",
        "noise.min_timestep: 500 is above max_timestep 400, so no timestep is left; lower it",
    ]
    assert check_objective(LossSection(), NoiseSection()) == ([], [])


@pytest.mark.parametrize(
    ("loss", "noise", "warning"),
    [
        ({"huber_c": 0.2}, {}, "loss.huber_c: 0.2 has no effect, for loss.kind is l2"),
        ({"kind": "huber", "huber_scale": 2}, {}, "loss.huber_scale: 2.0 has no effect, for loss.huber_schedule is snr"),
        ({}, {"offset_random": True}, "noise.offset_random: True has no effect, for noise.offset is not set"),
        ({}, {"multires_discount": 0.5}, "noise.multires_discount: 0.5 has no effect, for noise.multires_iterations is not set"),
        ({}, {"ip_gamma_random": True}, "noise.ip_gamma_random: True has no effect, for noise.ip_gamma is not set"),
    ],
)
def test_a_setting_that_nothing_reads_is_a_warning(loss, noise, warning):
    assert check_objective(LossSection(**loss), NoiseSection(**noise)) == ([], [warning])


def test_the_settings_reach_the_training_and_validation_stays_comparable(job):
    """A job with everything on: other losses, another result, the same validation loss before the first step."""
    runs = {}
    for name, sections in (
        ("plain", {}),
        ("varied", {"loss": {"kind": "huber", "min_snr_gamma": 1}, "noise": {"offset": 0.2, "min_timestep": 500, "max_timestep": 600}}),
    ):
        events = []
        result = train(job(save={"name": name, "dtype": "fp32"}, validate={"split": 0.2}, **sections), listen=events.append)
        validated = [event.loss for event in events if isinstance(event, Validated)]
        runs[name] = result.losses, tiny.tensors_of(result.artefact), validated[0], events
    assert runs["plain"][0] != runs["varied"][0] and tiny.differing(runs["plain"][1], runs["varied"][1])
    assert runs["plain"][2] == runs["varied"][2]


def test_a_wrong_setting_stops_the_job_before_pictures_are_encoded(job):
    events = []
    with pytest.raises(ConfigError, match=r"loss\.scale_v_pred"):
        train(job(loss={"scale_v_pred": True}), listen=events.append)
    assert not any(isinstance(event, Warned) for event in events)
    with pytest.raises(ConfigError, match=r"loss\.scale_v_pred: True is for models that predict v, but this one predicts epsilon"):
        check(job(loss={"scale_v_pred": True}))
    with pytest.raises(ConfigError, match=r"loss\.kind: 'l3' is unknown"):
        train(job(loss={"kind": "l3"}))


def test_another_objective_is_another_job(job):
    train(job(train={"steps": 1, "precision": "fp32", "device": "cpu"}))
    with pytest.raises(ResumeMismatch, match=r"noise\.offset: was 0\.0, now 0\.1"):
        train(job(noise={"offset": 0.1}), resume=True)


def test_prior_weights_do_not_count_in_validation(base):
    from trainer.validate import validation_loss

    family, own = tiny.load_model(base)
    latents = batch((5,)).latents
    one = Batch(("a",), ["a"], torch.nn.functional.pad(latents, (0, 2)), None, None, (5,))
    losses = []
    for weights in (None, (0.5,)):
        feed = SimpleNamespace(validation=lambda _parts, weights=weights: iter([replace(one, weights=weights)]))
        losses.append(validation_loss(family, own, SimpleNamespace(before_forward=lambda *_: None), feed, lambda: False))
    assert losses[0] == losses[1]
