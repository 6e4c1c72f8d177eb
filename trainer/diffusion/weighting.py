"""How much the loss counts at each timestep, from the signal-to-noise ratios of the noise schedule in use.

Every weight is finite, also where the ratio is 0 (zero terminal SNR): divisions keep it at least at 1/1000, a fifth of the
lowest ratio of Stable Diffusion's own schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .objective import Prediction

_HIGHEST, _LOWEST = 1000.0, 1 / 1000.0


@dataclass(frozen=True)
class Weighting:
    """`of` maps ratios (T,), the model's prediction and the setting's value to weights (T,).

    `only` is the one prediction that it makes sense for.
    """

    of: Callable[[Tensor, Prediction, float], Tensor]
    only: Prediction | None = None


def _min_snr(snr: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """Hang et al. 2023, arXiv 2303.09556: min(snr, gamma) / snr for noise, min(snr, gamma) / (snr + 1) for v."""
    if prediction == "epsilon":
        return gamma / snr.clamp(min=gamma)
    return snr.clamp(max=gamma) / (snr + 1)


def _debiased(snr: Tensor, prediction: Prediction, _on: float) -> Tensor:
    """Yu et al. 2023, arXiv 2310.08442: 1 / sqrt(snr) for noise, 1 / (snr + 1) for v."""
    if prediction == "epsilon":
        return snr.clamp(_LOWEST, _HIGHEST).rsqrt()
    return 1 / (snr + 1)


def _like_epsilon(snr: Tensor, _prediction: Prediction, _on: float) -> Tensor:
    """An error of noise is one of v times sqrt(abar) (arXiv 2202.00512), and abar = snr / (snr + 1)."""
    return snr / (snr + 1)


def _plus_v(snr: Tensor, _prediction: Prediction, factor: float) -> Tensor:
    """The loss of noise and `factor` times the one of v that it implies."""
    return 1 + factor * (1 + 1 / snr.clamp(min=_LOWEST))


# By the name of the setting in the `loss` section; several multiply.
WEIGHTINGS: dict[str, Weighting] = {
    "min_snr_gamma": Weighting(_min_snr),
    "debiased": Weighting(_debiased),
    "scale_v_pred": Weighting(_like_epsilon, only="v"),
    "v_pred_like": Weighting(_plus_v, only="epsilon"),
}
