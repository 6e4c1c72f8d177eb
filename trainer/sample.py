"""Drawing pictures with the model as it is now, by the same arithmetic as ComfyUI's KSampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .config import SampleSection
from .diffusion.samplers import SAMPLERS, SCHEDULERS, initial_latents, make_noise, sigma_to_timestep, step_noise
from .events import StopCheck, never
from .families import PROMPT, Conditioning, Family, Model, join

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Request:
    """One picture. `size` is (width, height) in pixels."""

    prompt: str
    negative: str
    seed: int
    size: tuple[int, int]
    steps: int
    cfg: float
    sampler: str
    scheduler: str


def requests(section: SampleSection, resolution: tuple[int, int]) -> list[Request]:
    """The pictures of a configuration; what a prompt leaves open comes from the section."""
    result = []
    for item in section.prompts:
        given = item.model_dump(exclude_none=True)
        default = section.model_dump(exclude={"prompts", "every_epochs", "every_steps", "at_start"})
        default["size"] = default["size"] or resolution
        result.append(Request(**{**default, **given}))
    return result


def check_sampling(section: SampleSection) -> list[str]:
    """Unknown sampler and scheduler names, one sentence each."""
    named = [("sample", section.sampler, section.scheduler)]
    named += [(f"sample.prompts.{number}", item.sampler, item.scheduler) for number, item in enumerate(section.prompts)]
    problems = []
    for path, sampler, scheduler in named:
        if sampler is not None and sampler not in SAMPLERS:
            problems.append(f"{path}.sampler: {sampler!r} is unknown; known: {', '.join(SAMPLERS)}")
        if scheduler is not None and scheduler not in SCHEDULERS:
            problems.append(f"{path}.scheduler: {scheduler!r} is unknown; known: {', '.join(SCHEDULERS)}")
    return problems


class Prompts:
    """Encoded prompts, read as ComfyUI reads them. `remember` keeps them, so that text encoders can leave memory."""

    def __init__(self, family: Family, model: Model):
        self._family, self._model = family, model
        self._kept: dict[str, Conditioning] = {}

    def remember(self, texts: list[str]) -> None:
        for text in dict.fromkeys(texts):
            self._kept[text] = self.encode(text)

    def encode(self, text: str) -> Conditioning:
        """Conditioning of one text, batch of 1."""
        if text not in self._kept:
            return self._family.encode_text(self._model, [text], PROMPT)
        return {name: tensor.to(self._model.device) for name, tensor in self._kept[text].items()}


@torch.no_grad()
def draw(
    family: Family,
    model: Model,
    prompts: Prompts,
    request: Request,
    stop: StopCheck = never,
    on_step: Callable[[int, int, Tensor], None] = lambda *_: None,
) -> Image | None:
    """One picture, or None when `stop()` became true."""
    latents = draw_latents(family, model, prompts, request, stop, on_step)
    if latents is None:
        return None
    return to_image(family.decode_latents(model, latents))


def draw_latents(
    family: Family, model: Model, prompts: Prompts, request: Request, stop: StopCheck, on_step: Callable[[int, int, Tensor], None]
) -> Tensor | None:
    """Latents (1, C, h, w) of one picture, float32 on the model's device."""
    sigmas_all = model.schedule.sigmas
    sigmas = SCHEDULERS[request.scheduler](sigmas_all, request.steps)
    shape = (1, *family.latent_shape(model, request.size))
    noise = make_noise(shape, request.seed).to(model.device)
    x = initial_latents(noise, sigmas, float(sigmas_all[-1]))
    guided = request.cfg != 1.0
    texts = [request.prompt, request.negative] if guided else [request.prompt]
    width, height = request.size
    sizes = torch.tensor([[height, width, 0, 0, height, width]], device=model.device)  # a whole picture of the size drawn
    both = join([prompts.encode(text) | {"sizes": sizes} for text in texts])

    def denoise(x: Tensor, sigma: float) -> Tensor:
        timestep = torch.full((2 if guided else 1,), sigma_to_timestep(sigma, sigmas_all), device=x.device)
        scaled = x / (sigma**2 + 1) ** 0.5
        predicted = family.predict(model, torch.cat([scaled, scaled]) if guided else scaled, timestep, both)
        clean = model.schedule.denoised(torch.cat([x, x]) if guided else x, predicted, sigma)
        if not guided:
            return clean
        wanted, unwanted = clean.chunk(2)
        return unwanted + (wanted - unwanted) * request.cfg

    return SAMPLERS[request.sampler](denoise, x, sigmas, step_noise(x, request.seed), on_step, stop)


def to_image(pixels: Tensor) -> Any:
    """Pixels (1, 3, H, W) in [-1, 1] to a PIL image, rounded down as ComfyUI does."""
    from PIL import Image

    array = ((pixels[0].permute(1, 2, 0) + 1) / 2).clamp(0, 1).mul(255).byte().cpu().numpy()
    return Image.fromarray(array)
