"""Loss on held-out pictures, at noise and timesteps that never change, so that two figures can be compared.

It is the plain mean squared error over the whole noise range, inside masks where there are some, whatever the `loss` and
`noise` sections say: runs with other settings can be compared too.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .events import StopCheck
from .families import Family, Model
from .feed import Feed
from .methods import Method
from .objective import batch_loss

PARTS = 8  # timesteps per picture: the middle of each of so many equal parts of the noise range


@torch.no_grad()
def validation_loss(family: Family, model: Model, method: Method, feed: Feed, stop: StopCheck) -> float | None:
    """Mean over held-out pictures and timesteps, or None when `stop()` became true."""
    method.before_forward()
    count = model.schedule.num_timesteps
    total, number = torch.zeros((), dtype=torch.float64), 0
    for batch in feed.validation(PARTS):
        if stop():
            return None
        timestep = int((number % PARTS + 0.5) / PARTS * count)
        plain = replace(batch, weights=None)
        total += batch_loss(family, model, plain, timesteps=torch.tensor([timestep])).double().sum().cpu()
        number += 1
    return float(total / number)
