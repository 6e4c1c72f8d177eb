from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from trainer.config import SampleSection
from trainer.sample import Prompts, Request, draw, draw_latents, requests, to_image

REQUEST = Request("a red cat", "blurry", 5, (64, 96), 3, 4.0, "euler", "normal")


@pytest.fixture(scope="module")
def tools(base):
    family, model = tiny.load_model(base)
    return family, model, Prompts(family, model)


def latents(tools, **changes) -> torch.Tensor:
    with torch.no_grad():
        return draw_latents(*tools, dataclasses.replace(REQUEST, **changes), lambda: False, lambda *_: None)


def test_equal_seeds_draw_equal_pictures_of_the_size_asked_for(tools):
    first, second = draw(*tools, REQUEST), draw(*tools, REQUEST)
    assert first.size == (64, 96) and first.mode == "RGB"
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("change", [{"seed": 6}, {"prompt": "a dog"}, {"negative": "sharp"}, {"cfg": 5.0}, {"steps": 4}])
def test_what_is_asked_for_counts(tools, change):
    assert not torch.equal(latents(tools), latents(tools, **change))


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "ddim"])
def test_guidance_of_one_is_the_model_alone(tools, sampler):
    """negative + 1 · (positive - negative) is positive; the two-fold batch gives the same but for rounding."""
    alone = latents(tools, cfg=1.0, sampler=sampler)
    assert torch.equal(alone, latents(tools, cfg=1.0, sampler=sampler, negative="anything else"))
    nearly = latents(tools, cfg=1.0 + 1e-9, sampler=sampler)
    torch.testing.assert_close(alone, nearly, rtol=1e-3, atol=1e-3)


def test_guidance_moves_along_the_difference_of_the_two_predictions(tools):
    """After one step from the same noise, the result is linear in cfg."""
    one, two, four = (latents(tools, steps=1, cfg=cfg) for cfg in (1.0, 2.0, 4.0))
    torch.testing.assert_close(four - one, 3 * (two - one), rtol=1e-3, atol=1e-3)
    assert float((two - one).abs().max()) > 1e-4


def test_prompts_that_were_remembered_need_no_text_encoder(base):
    family, model = tiny.load_model(base)
    prompts = Prompts(family, model)
    expected = latents((family, model, prompts))
    prompts.remember([REQUEST.prompt, REQUEST.negative])
    model.text_encoders = {}
    assert torch.equal(latents((family, model, prompts)), expected)


def test_a_stop_gives_no_picture(tools):
    polls = []
    assert draw(*tools, REQUEST, stop=lambda: polls.append(1) or len(polls) > 1) is None


def test_what_a_prompt_leaves_open_comes_from_the_section():
    section = SampleSection(
        prompts=["a", {"prompt": "b", "size": "64x128", "cfg": 0, "seed": 0, "negative": ""}], negative="n", seed=9, cfg=3
    )
    first, second = requests(section, (512, 768))
    assert first == Request("a", "n", 9, (512, 768), 20, 3.0, "euler", "normal")
    assert second == Request("b", "", 0, (64, 128), 20, 0.0, "euler", "normal")
    (third,) = requests(SampleSection(prompts="c", size=64), (512, 512))
    assert third.size == (64, 64)


def test_pixels_become_the_colours_of_the_picture():
    pixels = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0]).view(1, 1, 2, 3).expand(1, 3, 2, 3)
    image = to_image(pixels)
    assert image.size == (3, 2)
    assert [value[0] for value in image.getdata()] == [0, 0, 127, 254, 255, 255]
