"""The `loss` and `noise` sections: what the model is asked to do at each step, and how its errors count."""

from __future__ import annotations

from .section import Float, Int, Section, option


class LossSection(Section):
    """How errors are measured and weighted. Validation always takes the plain mean squared error."""

    kind: str = option("l2", "How errors count: l2 squares them; l1, huber and smooth_l1 let single large ones count less.")
    huber_schedule: str = option("snr", "How the threshold of huber and smooth_l1 changes with the noise level.", advanced=True)
    huber_c: Float = option(0.1, "Threshold of huber and smooth_l1 where noise is strongest: larger errors count like l1.", gt=0, le=10)
    huber_scale: Float = option(1.0, "Factor on the threshold of the schedules exponential and constant.", gt=0, le=1000, advanced=True)
    min_snr_gamma: Float | None = option(
        None,
        "Timesteps with little noise, whose signal-to-noise ratio is above this, count less (min-SNR); 5 is usual.",
        ge=0.01,
        le=1000,
        step=0.5,
    )
    debiased: bool = option(False, "Debiased estimation: timesteps with strong noise count more.")
    scale_v_pred: bool = option(False, "Weight a model that predicts v as if it predicted noise.", advanced=True)
    v_pred_like: Float | None = option(
        None, "Add so many times the loss that a model would have that predicts v; for models that predict noise.",
        ge=0.001, le=100, advanced=True,
    )  # fmt: skip
    prior_weight: Float = option(1.0, "Weight of regularisation pictures.", ge=0, le=100)


class NoiseSection(Section):
    """Which noise is added, and at which timesteps. Validation always takes plain noise at all timesteps."""

    offset: Float = option(
        0.0, "Strength of noise that shifts whole channels, so that very dark and bright pictures are learned; 0.05 to 0.1.", ge=0, le=10
    )
    offset_random: bool = option(False, "Draw the strength of each sample between 0 and `offset`.")
    adaptive_scale: Float | None = option(
        None, "Add so many times the channel's own mean to `offset`; below 0 it is taken off.", ge=-10, le=10, advanced=True
    )
    multires_iterations: Int | None = option(None, "Levels of coarser noise that are added (pyramid noise); 6 to 10.", ge=1, le=64)
    multires_discount: Float = option(0.3, "Strength of each level, as a share of the level before it.", gt=0, le=1)
    ip_gamma: Float | None = option(
        None, "Strength of further noise in the model's input that it is not asked to find (input perturbation); 0.1.", ge=0.001, le=10
    )
    ip_gamma_random: bool = option(False, "Draw that strength for each sample between 0 and `ip_gamma`.")
    min_timestep: Int = option(0, "First timestep that is trained; 0 is almost no noise.", ge=0, le=100000, advanced=True)
    max_timestep: Int = option(
        1000, "The timestep after the last that is trained; equal to `min_timestep`, only that one is.", ge=0, le=100000, advanced=True
    )
