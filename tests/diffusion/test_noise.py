"""Noise that is not plain: what it adds, and that samples do not depend on each other."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from trainer.diffusion.noise import adaptive_strength, multires_noise, offset_noise, perturbed, pyramid


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_offset_changes_only_the_mean_of_each_channel():
    noise, shift = normal(3, 4, 8, 6), normal(3, 4, 1, 1, seed=1)
    moved = offset_noise(noise, shift, torch.tensor([0.1, 0.5, 0.0]).view(3, 1, 1, 1))
    difference = moved - noise
    torch.testing.assert_close(difference[:, :, 0, 0], torch.tensor([[0.1], [0.5], [0.0]]) * shift[:, :, 0, 0], atol=1e-6, rtol=1e-5)
    assert float(difference.std((2, 3)).max()) < 1e-6
    torch.testing.assert_close(moved - moved.mean((2, 3), keepdim=True), noise - noise.mean((2, 3), keepdim=True), atol=1e-5, rtol=0)


def test_adaptive_strength_follows_the_mean_of_each_channel_and_stops_at_zero():
    latents = torch.tensor([[-2.0, 0.5]]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    base = torch.full((1, 1, 1, 1), 0.1)
    assert adaptive_strength(base, latents, 0.05).flatten().tolist() == pytest.approx([0.2, 0.125])
    assert adaptive_strength(base, latents, -0.1).flatten().tolist() == pytest.approx([0.0, 0.05])


def test_pyramid_adds_levels_that_shrink_and_fade():
    """The same numbers drawn in the same order, put together by hand."""
    shape, discount = (4, 24, 16), 0.5
    generator, again = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    expected, sizes = torch.zeros(1, *shape), []
    for level in range(10):
        ratio = 2 + 2 * float(torch.rand((), generator=again))
        height, width = max(1, int(24 / ratio**level)), max(1, int(16 / ratio**level))
        sizes.append((height, width))
        grown = interpolate(torch.randn(1, 4, height, width, generator=again), size=(24, 16), mode="bilinear")
        expected = expected + grown * discount**level
        if height == 1 or width == 1:
            break
    torch.testing.assert_close(pyramid(shape, 10, discount, generator), expected[0], rtol=1e-5, atol=1e-6)
    assert sizes[0] == (24, 16) and 3 <= len(sizes) <= 5 and 1 in sizes[-1]


def test_one_level_is_a_second_noise_of_full_size():
    assert torch.equal(
        pyramid((4, 8, 8), 1, 0.3, torch.Generator().manual_seed(3)),
        _after_one_number(3),
    )


def _after_one_number(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    torch.rand((), generator=generator)
    return torch.randn(4, 8, 8, generator=generator)


def test_multires_noise_has_unit_deviation_in_each_sample_and_ignores_its_neighbours():
    noise, levels = normal(2, 4, 16, 16), normal(2, 4, 16, 16, seed=1) * torch.tensor([0.5, 30.0]).view(2, 1, 1, 1)
    both = multires_noise(noise, levels)
    assert both.std((1, 2, 3)).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    torch.testing.assert_close(multires_noise(noise[:1], levels[:1]), both[:1])
    mixed = noise[0].double() + levels[0].double()
    torch.testing.assert_close(both[0].double(), mixed / mixed.std(), atol=1e-5, rtol=1e-5)


def test_input_perturbation_adds_gamma_times_the_extra_noise():
    noise, extra = normal(2, 4, 4, 4), normal(2, 4, 4, 4, seed=1)
    gamma = torch.tensor([0.1, 0.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(perturbed(noise, extra, gamma)[0], noise[0] + 0.1 * extra[0])
    assert torch.equal(perturbed(noise, extra, gamma)[1], noise[1])
