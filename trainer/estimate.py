"""How much memory and disk a job needs, from shapes alone: networks on the meta device, which have no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from .config import TrainConfig
from .families import PROMPT, Family, Model, join
from .families.storage import device_bytes, whole_bytes
from .feed import Batch, caches_latents
from .live_bytes import LiveBytes
from .methods import METHODS, Method
from .objective import batch_loss, make_objective
from .optim.optimizers import OPTIMIZERS
from .precision import DTYPES, resolve_device
from .sample import Request, requests

MIB = 2**20
_PROCESS_MIB = 600  # Python, torch and its libraries
_SLACK = 1.15  # temporary tensors and the allocator's gaps


@dataclass(frozen=True)
class Estimate:
    """Mebibytes, but `parameters` is a count."""

    parameters: int  # trained
    base_mib: float  # frozen weights that stay in memory while training
    trained_mib: float  # trained weights and the optimizer's state
    activations_mib: float  # of one micro-batch at the worst moment: what the backward pass needs, and gradients
    loading_mib: float  # on the CPU, where weights are whole before they are stored otherwise; else 0
    encoding_mib: float  # while pictures and captions are encoded: encoders, the largest picture, on the CPU the UNet that waits
    drawing_mib: float  # while a sample picture is drawn; 0 where none is
    file_mib: float  # the saved file

    @property
    def stages(self) -> dict[str, int]:
        """What each part of a run takes in all, with the process itself."""
        training = self.base_mib + self.trained_mib + self.activations_mib
        needs = {"loading": self.loading_mib, "encoding": self.encoding_mib, "training": training, "drawing": self.drawing_mib}
        return {name: round(need * _SLACK + _PROCESS_MIB) for name, need in needs.items() if need}

    @property
    def total_mib(self) -> int:
        return max(self.stages.values())


def estimate(config: TrainConfig, family: Family, model: Model, largest_bucket: tuple[int, int]) -> Estimate:
    """For a model that was loaded on the meta device; it is used up by the estimate."""
    encoders, on_cpu = [*model.text_encoders.values(), model.vae], resolve_device(config.train.device).type == "cpu"
    waiting = whole_bytes(model.unet) if on_cpu else 0  # it comes to the device when the encoders have done their work
    loading = waiting + sum(map(whole_bytes, encoders)) if on_cpu and config.memory.weights != "full" else 0
    encoding = waiting + sum(map(device_bytes, encoders)) + _encoding(family, model, largest_bucket)
    method = METHODS[config.method.kind](config.method, config.optimizer)
    method.attach(family, model, config.train.seed)
    if config.train.gradient_checkpointing:
        family.enable_checkpointing(model, config.memory.checkpoint_every)
    parameters = sum(parameter.numel() for group in method.groups() for parameter in group.parameters)
    wanted = requests(config.sample, config.dataset.resolution)
    kept = [
        model.unet,
        *(model.text_encoders.values() if method.trains_text else []),
        *([model.vae] if wanted or not caches_latents(config) else []),
    ]
    base = sum(map(device_bytes, kept))
    state = OPTIMIZERS[config.optimizer.kind].state_bytes + (4 if config.train.ema is not None else 0)
    trained = parameters * (4 + state)
    file_bytes = parameters * torch.finfo(DTYPES[config.save.dtype]).bits // 8
    return Estimate(
        parameters=parameters,
        base_mib=base / MIB,
        trained_mib=trained / MIB,
        activations_mib=_activations(config, family, model, method, largest_bucket) / MIB,
        loading_mib=loading / MIB,
        encoding_mib=encoding / MIB,
        drawing_mib=(base + trained + max(_drawing(family, model, request) for request in wanted)) / MIB if wanted else 0.0,
        file_mib=file_bytes / MIB,
    )


def _encoding(family: Family, model: Model, size: tuple[int, int]) -> int:
    """Bytes that encoding one picture of `size` (width, height) takes at its worst moment."""
    pixels = torch.empty(1, 3, size[1], size[0], device="meta")
    with torch.no_grad(), LiveBytes() as live, _FusedAttention():
        family.encode_images(model, pixels)
    return live.peak


def _drawing(family: Family, model: Model, request: Request) -> int:
    """Bytes that one sample picture takes at its worst moment: in the image network, or where latents become pixels."""
    with torch.no_grad():
        texts = [request.prompt, request.negative] if request.cfg != 1.0 else [request.prompt]
        sizes = torch.empty(len(texts), 6, device="meta")
        conditioning = join([family.encode_text(model, [text], PROMPT) for text in texts]) | {"sizes": sizes}
        latents = torch.empty(len(texts), *family.latent_shape(model, request.size), device="meta")
        with LiveBytes() as live, _FusedAttention():
            family.predict(model, latents, torch.zeros(len(texts), device="meta"), conditioning)
            family.decode_latents(model, latents[:1])
    return live.peak


def _activations(config: TrainConfig, family: Family, model: Model, method: Method, size: tuple[int, int]) -> int:
    """Bytes that a forward and a backward pass take at their worst moment, gradients and copies of the trained weights included."""
    samples = min(config.dataset.batch_size, config.memory.micro_batch or config.dataset.batch_size)
    latents = torch.empty(samples, *family.latent_shape(model, size), device="meta")
    captions = ["a " * model.tokenizer.limit if config.dataset.captions.max_tokens > 75 else ""] * samples
    conditioning = None
    if not method.trains_text:
        with torch.no_grad():
            conditioning = family.encode_text(model, captions)
    sizes = torch.empty(samples, 6, device="meta")
    batch = Batch(("",) * samples, captions, latents, None, conditioning, tuple(range(samples)), sizes=sizes)
    objective = make_objective(config.loss, config.noise, model.schedule)
    with LiveBytes() as live, _FusedAttention():
        method.before_forward()
        loss = batch_loss(family, model, batch, objective).sum()
        # What torch.autograd.backward ends in; that itself would leave the modes, so checkpointed parts would be recomputed without.
        _engine_run_backward((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)
    return live.peak


class _FusedAttention(TorchFunctionMode):
    """Attention as the kernels of real devices compute it: kept are queries, keys, values, outputs and one number per query.

    Without weights, torch takes the way that also keeps the scores of every query for every key, several times over.
    """

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return _fused(*args, **kwargs) if function is scaled_dot_product_attention else function(*args, **kwargs)


def _fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None, **_: Any) -> Tensor:
    """(B, heads, queries, width); dropout and causality, which may be among the rest, change no shape."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=attn_mask, scale=scale)[0]
