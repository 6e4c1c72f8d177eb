"""The loss of a batch: noise it, let the model predict, compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import LossSection, NoiseSection
from .config.section import Section
from .diffusion.losses import HUBER_SCHEDULES, LOSSES, Loss, mean_error
from .diffusion.noise import adaptive_strength, multires_noise, offset_noise, perturbed, pyramid
from .diffusion.objective import NoiseSchedule
from .diffusion.weighting import WEIGHTINGS
from .errors import ConfigError
from .families import Family, Model
from .feed import Batch
from .seeds import derive


@dataclass(frozen=True)
class Objective:
    """The `loss` and `noise` sections, worked out for one noise schedule. The default is the plain objective of validation."""

    noise: NoiseSection = NoiseSection()
    loss: Loss = LOSSES["l2"]
    thresholds: Tensor | None = None  # (T,) of losses that have one
    weights: Tensor | None = None  # (T,) float32
    timesteps: tuple[int, int] | None = None  # the first and the one after the last; None is all of the schedule


PLAIN = Objective()


def make_objective(loss: LossSection, noise: NoiseSection, schedule: NoiseSchedule) -> Objective:
    """ConfigError where a setting does not suit the schedule's length or what the model predicts."""
    weightings = {name: float(value) for name in WEIGHTINGS if (value := getattr(loss, name))}
    problems = []
    for name in weightings:
        only = WEIGHTINGS[name].only
        if only not in (None, schedule.prediction):
            problems.append(
                f"loss.{name}: {getattr(loss, name)} is for models that predict {only}, but this one predicts {schedule.prediction}; "
                "leave it out, or set base.prediction if that is wrong"
            )
    first, end = noise.min_timestep, noise.max_timestep
    if end == NoiseSection.model_fields["max_timestep"].default:  # all, also of a schedule of another length
        end = schedule.num_timesteps
    last = first if first == end else end - 1
    if last >= schedule.num_timesteps:
        name = "min_timestep" if first == end else "max_timestep"
        problems.append(f"noise.{name}: {end} is too high for the model's {schedule.num_timesteps} timesteps; lower it")
    if problems:
        raise ConfigError(problems)
    weights = None
    for name, value in weightings.items():
        factor = WEIGHTINGS[name].of(schedule.snr, schedule.prediction, value)
        weights = factor if weights is None else weights * factor
    chosen = LOSSES[loss.kind]
    thresholds = HUBER_SCHEDULES[loss.huber_schedule](schedule.sigmas, loss.huber_c, loss.huber_scale) if chosen.has_threshold else None
    tables = [None if table is None else table.float() for table in (thresholds, weights)]
    return Objective(noise, chosen, *tables, timesteps=(first, last + 1))


def check_objective(loss: LossSection, noise: NoiseSection) -> tuple[list[str], list[str]]:
    """Problems and warnings that need no model, one sentence each."""
    problems = []
    for name, known in (("kind", LOSSES), ("huber_schedule", HUBER_SCHEDULES)):
        if (value := getattr(loss, name)) not in known:
            problems.append(f"loss.{name}: {value!r} is unknown; known: {', '.join(known)}")
    if noise.min_timestep > noise.max_timestep:
        problems.append(
            f"noise.min_timestep: {noise.min_timestep} is above max_timestep {noise.max_timestep}, so no timestep is left; lower it"
        )
    warnings = []
    if loss.kind in LOSSES and not LOSSES[loss.kind].has_threshold:
        warnings += _without_effect("loss", loss, ("huber_schedule", "huber_c", "huber_scale"), f"loss.kind is {loss.kind}")
    elif loss.huber_schedule == "snr":
        warnings += _without_effect("loss", loss, ("huber_scale",), "loss.huber_schedule is snr")
    for needed, names in (
        ("offset", ("offset_random",)),
        ("multires_iterations", ("multires_discount",)),
        ("ip_gamma", ("ip_gamma_random",)),
    ):
        if not getattr(noise, needed):
            warnings += _without_effect("noise", noise, names, f"noise.{needed} is not set")
    return problems, warnings


def _without_effect(path: str, section: Section, names: tuple[str, ...], why: str) -> list[str]:
    """A warning for each setting that was changed although nothing reads it."""
    fields = type(section).model_fields
    changed = {name: getattr(section, name) for name in names if getattr(section, name) != fields[name].default}
    return [f"{path}.{name}: {value} has no effect, for {why}" for name, value in changed.items()]


def batch_loss(family: Family, model: Model, batch: Batch, objective: Objective = PLAIN, timesteps: Tensor | None = None) -> Tensor:
    """The weighted loss of each sample, shape (B,), float32.

    Noise and timestep of a sample follow from its seed; `timesteps` (B,) on the CPU overrides the drawn ones.
    """
    if timesteps is None:
        timesteps = torch.tensor([timestep_of(seed, objective, model.schedule) for seed in batch.seeds])
    predicted, latents, noise = predict(family, model, batch, timesteps, objective.noise)
    target = model.schedule.target(latents, noise, timesteps.to(model.device, non_blocking=True))
    thresholds = None if objective.thresholds is None else objective.thresholds[timesteps].view(-1, 1, 1, 1)
    errors = objective.loss.of(predicted - target, _moved(thresholds, model.device))
    loss = mean_error(errors, _moved(batch.masks, model.device))
    weights = _moved(_sample_weights(objective, batch, timesteps), model.device)
    return loss if weights is None else loss * weights


def predict(family: Family, model: Model, batch: Batch, timesteps: Tensor, section: NoiseSection) -> tuple[Tensor, Tensor, Tensor]:
    """The model's answer to noised samples at `timesteps` (B,), their clean latents, and the noise to find; each (B, C, h, w)."""
    latents = _latents(family, model, batch)
    timesteps = timesteps.to(model.device, non_blocking=True)
    noise, input_noise = draw_noise(latents, batch.seeds, section)
    noisy = model.schedule.add_noise(latents, input_noise, timesteps)
    return family.predict(model, noisy, timesteps, _conditioning(family, model, batch)), latents, noise


def _sample_weights(objective: Objective, batch: Batch, timesteps: Tensor) -> Tensor | None:
    """What the loss of each sample is multiplied with, (B,) on the CPU; None for 1."""
    weights = None if batch.weights is None else torch.tensor(batch.weights)
    if objective.weights is None:
        return weights
    by_timestep = objective.weights[timesteps]
    return by_timestep if weights is None else by_timestep * weights


def draw_noise(latents: Tensor, seeds: tuple[int, ...], section: NoiseSection) -> tuple[Tensor, Tensor]:
    """The noise (B, C, h, w) that the model is to find, and the noise that is in its input: the same without input perturbation."""
    shape, device = latents.shape[1:], latents.device

    def normal(name: str, shape: tuple[int, ...] = tuple(shape)) -> Tensor:
        return torch.stack([torch.randn(shape, generator=_generator(seed, name)) for seed in seeds]).to(device, non_blocking=True)

    def strength(name: str, full: float, random: bool) -> Tensor:
        """(B, 1, 1, 1): `full`, or a number of each sample between 0 and it."""
        numbers = [full * derive(seed, name) / 2**63 if random else full for seed in seeds]
        return torch.tensor(numbers).view(-1, 1, 1, 1).to(device, non_blocking=True)

    noise = normal("noise")
    if section.offset or section.adaptive_scale:
        force = strength("noise offset strength", section.offset, section.offset_random)
        if section.adaptive_scale:
            force = adaptive_strength(force, latents, section.adaptive_scale)
        noise = offset_noise(noise, normal("noise offset", (shape[0], 1, 1)), force)
    if section.multires_iterations:
        count, discount = section.multires_iterations, section.multires_discount
        levels = [pyramid(tuple(shape), count, discount, _generator(seed, "pyramid")) for seed in seeds]
        noise = multires_noise(noise, torch.stack(levels).to(device, non_blocking=True))
    if not section.ip_gamma:
        return noise, noise
    gamma = strength("input noise strength", section.ip_gamma, section.ip_gamma_random)
    return noise, perturbed(noise, normal("input noise"), gamma)


def _latents(family: Family, model: Model, batch: Batch) -> Tensor:
    if batch.latents is not None:
        return batch.latents.to(model.device, non_blocking=True)
    assert batch.pixels is not None
    with torch.no_grad():  # one by one, as the cache is filled, so that cached and fresh latents are equal
        return torch.cat([family.encode_images(model, pixels[None]) for pixels in batch.pixels])


def _conditioning(family: Family, model: Model, batch: Batch) -> dict[str, Tensor]:
    given = batch.conditioning if batch.conditioning is not None else family.encode_text(model, batch.captions)
    sizes = {} if batch.sizes is None else {"sizes": batch.sizes}
    return {name: tensor.to(model.device, non_blocking=True) for name, tensor in (given | sizes).items()}


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, name))


def timestep_of(seed: int, objective: Objective, schedule: NoiseSchedule) -> int:
    """The timestep of a sample: uniform over the objective's part of the schedule."""
    first, end = objective.timesteps or (0, schedule.num_timesteps)
    return first + derive(seed, "timestep") % (end - first)


def _moved(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device, non_blocking=True)
