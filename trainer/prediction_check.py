"""Whether a model seems to predict what it is trained to predict. A file seldom says so, and a wrong guess ruins a training."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from .diffusion.objective import Prediction
from .families import Family, Model
from .feed import Batch
from .methods import Method
from .objective import PLAIN, predict

_KINDS: tuple[Prediction, ...] = ("epsilon", "v")
_PARTS = (0.5, 0.7)  # of the noise range: in its middle, noise and v differ most, and a trained model knows both


@torch.no_grad()
def prediction_warning(family: Family, model: Model, method: Method, batch: Batch) -> str | None:
    """A sentence for the user where the model without what is trained fits the other prediction clearly better.

    Clearly: its error is less than half as large, and less than half of what answering nothing would give; so an untrained
    model gives no warning. It takes one forward pass of one sample at two timesteps, and no random number of the training.
    """
    own = model.schedule.prediction
    if own not in _KINDS:
        return None
    other = next(kind for kind in _KINDS if kind != own)
    timesteps = torch.tensor([int(part * model.schedule.num_timesteps) for part in _PARTS])
    with method.without():
        predicted, latents, noise = predict(family, model, _repeated(batch, len(_PARTS)), timesteps, PLAIN.noise)
    errors = {}
    for kind in _KINDS:
        target = replace(model.schedule, prediction=kind).target(latents, noise, timesteps.to(model.device))
        errors[kind] = float((predicted - target).square().mean() / target.square().mean())
    if not errors[other] < 0.5 * min(errors[own], 1):
        return None
    return (
        f"the base model seems to predict {other}, but it is trained to predict {own} (relative errors {errors[other]:.2f} and "
        f"{errors[own]:.2f}); set base.prediction to {other} if that is what it is"
    )


def _repeated(batch: Batch, count: int) -> Batch:
    """The first sample of a batch, `count` times."""

    def repeat(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value[:1].expand(count, *value.shape[1:])
        if isinstance(value, dict):
            return {name: repeat(item) for name, item in value.items()}
        return None if value is None else value[:1] * count

    return replace(batch, **{item.name: repeat(getattr(batch, item.name)) for item in fields(batch)})
