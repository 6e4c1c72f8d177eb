"""torch.compile for the image network while it trains; samples and validation, whose shapes differ, go without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .families import Model
from .memory import is_out_of_memory

BACKEND = "inductor"


class Compilation:
    """The network of a model, compiled where `on()` is entered. Without a mode, or once it was found wrong, it stays as it is."""

    def __init__(self, model: Model, mode: str | None):
        self._model = model
        if mode:
            torch.compiler.reset()  # what earlier runs compiled counts towards a limit, past which nothing more is compiled
        options: dict[str, Any] = {"mode": mode} if BACKEND == "inductor" else {}
        self._compiled: Any = torch.compile(model.unet, backend=BACKEND, **options) if mode else None
        self._compared: set[torch.Size] = set()

    @contextmanager
    def on(self) -> Iterator[None]:
        if self._compiled is None:
            yield
            return
        plain = self._model.unet
        self._model.unet = self._compiled
        try:
            with _repeating(plain):
                yield
        finally:
            self._model.unet = plain

    def to_compare(self, shape: torch.Size) -> bool:
        """Whether a batch of this shape, for which other kernels are made, has still to be compared."""
        return self._compiled is not None and shape not in self._compared

    def compare(self, shape: torch.Size, gradients: Callable[[], list[Tensor]]) -> str | None:
        """Call `gradients`, which computes those of one batch, with the plain and the compiled network.

        Where those of any tensor differ by more than four times the square root of the numbers' precision, or it cannot be compiled, the
        plain one is used from now on, and the reason is returned. In bf16 0.35 are allowed; rounding makes up to 0.08 (Stable Diffusion
        1.5). Out of memory is raised.
        """
        plain = gradients()
        try:
            with self.on():
                compiled = gradients()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split("\n", 2)[:2]).strip()  # the first names the backend, the second says what it lacks
            return self._give_up(f"torch.compile does not work here ({reason})")
        sizes = _norms(plain)
        whole = sizes.norm()
        if not torch.isfinite(whole) or whole == 0:  # says nothing: an overflow in fp16, or a network that passes no gradient
            return None
        self._compared.add(shape)
        apart = _norms(ours - theirs for ours, theirs in zip(compiled, plain, strict=True)) / sizes.clamp(min=1e-6 * float(whole))
        bound = 4 * torch.finfo(self._model.dtype).eps ** 0.5
        wrong = int((~(apart <= bound)).sum())
        if wrong:
            size = "×".join(str(length) for length in shape)
            amount = f"up to {float(apart.max()):.1%} off (allowed {bound:.2%})"
            return self._give_up(f"compiled for a batch of {size}, gradients of {wrong} of {len(sizes)} tensors are {amount}")
        return None

    def _give_up(self, reason: str) -> str:
        self._compiled = None
        return not_taken(reason)


def prepare(model: Model, config: TrainConfig) -> tuple[Compilation, str | None]:
    """What the configuration asks for, and in words what of it is not taken, and why."""
    mode = config.train.compile
    if mode == "off":
        return Compilation(model, None), None
    if reason := reason_against(config):
        return Compilation(model, None), not_taken(reason)
    if mode == "reduce-overhead" and model.device.type != "cuda":
        return Compilation(model, "default"), f"train.compile: compiled without CUDA graphs, for the device is {model.device.type}"
    return Compilation(model, mode), None


def not_taken(reason: str) -> str:
    return f"train.compile: not taken: {reason}"


def reason_against(config: TrainConfig) -> str | None:
    """What of a configuration would have the network compiled anew at nearly every step, or not at all."""
    method, memory = config.method, config.memory
    if memory.weights != "full" or memory.offload > 0:
        return "weights that memory.weights or memory.offload store are made anew in each pass"
    if getattr(method, "module_dropout", 0):
        return "method.module_dropout leaves out other layers at each step"
    if getattr(method, "adapter", "") == "dylora":
        return "DyLoRA trains another rank at each step"
    return None


@contextmanager
def _repeating(network: nn.Module) -> Iterator[None]:
    """Let the network's upsamplers repeat rows and columns, the same as interpolation by the nearest pixel.

    Compiled, the gradient of an interpolation is added up in place, and torch 2.13 may read the sum before it is made: what lies below the
    upsampler then learns nothing.
    """
    from diffusers.models.upsampling import Upsample2D

    upsamplers = [module for module in network.modules() if isinstance(module, Upsample2D) and module.interpolate]
    hooks = [module.register_forward_pre_hook(_repeat) for module in upsamplers]
    for module in upsamplers:
        module.interpolate = False
    try:
        yield
    finally:
        for module, hook in zip(upsamplers, hooks, strict=True):
            module.interpolate = True
            hook.remove()


def _repeat(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """(B, C, h, w) -> (B, C, 2h, 2w), or the size that is the second input, where that is one row or column less."""
    x, size = inputs[0], inputs[1] if len(inputs) > 1 else None
    batch, channels, height, width = x.shape
    x = x[:, :, :, None, :, None].expand(batch, channels, height, 2, width, 2).reshape(batch, channels, 2 * height, 2 * width)
    return x if size is None else x[:, :, : size[0], : size[1]], *inputs[1:]


def _norms(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.double().norm() for tensor in tensors])
