"""The loss of a batch: noise it, let the model predict, compare."""

from __future__ import annotations

import torch
from torch import Tensor

from .families import Family, Model
from .feed import Batch
from .seeds import derive


def batch_loss(family: Family, model: Model, batch: Batch, timesteps: Tensor | None = None) -> Tensor:
    """Mean squared error of each sample, shape (B,), float32.

    Noise and timestep of a sample follow from its seed; `timesteps` (B,) overrides the drawn ones.
    """
    latents = _latents(family, model, batch)
    noise = torch.stack([_noise(latents.shape[1:], seed) for seed in batch.seeds]).to(model.device, non_blocking=True)
    if timesteps is None:
        timesteps = torch.tensor([_timestep(seed, model.schedule.num_timesteps) for seed in batch.seeds])
    timesteps = timesteps.to(model.device, non_blocking=True)
    noisy = model.schedule.add_noise(latents, noise, timesteps)
    predicted = family.predict(model, noisy, timesteps, _conditioning(family, model, batch))
    target = model.schedule.target(latents, noise, timesteps)
    return (predicted - target).square().flatten(1).mean(1)


def _latents(family: Family, model: Model, batch: Batch) -> Tensor:
    if batch.latents is not None:
        return batch.latents.to(model.device, non_blocking=True)
    assert batch.pixels is not None
    with torch.no_grad():  # one by one, as the cache is filled, so that cached and fresh latents are equal
        return torch.cat([family.encode_images(model, pixels[None]) for pixels in batch.pixels])


def _conditioning(family: Family, model: Model, batch: Batch) -> dict[str, Tensor]:
    if batch.conditioning is None:
        return family.encode_text(model, batch.captions)
    return {name: tensor.to(model.device, non_blocking=True) for name, tensor in batch.conditioning.items()}


def _noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive(seed, "noise")))


def _timestep(seed: int, count: int) -> int:
    """Uniform over all timesteps."""
    return derive(seed, "timestep") % count
