"""How much memory and disk a job needs, from shapes alone: networks on the meta device, which have no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from .config import TrainConfig
from .families import Family, Model
from .families.storage import device_bytes
from .feed import Batch, caches_latents
from .methods import METHODS, Method
from .objective import batch_loss, make_objective
from .optim.optimizers import OPTIMIZERS
from .precision import DTYPES

MIB = 2**20
_PROCESS_MIB = 600  # Python, torch and its libraries
_SLACK = 1.15  # temporary tensors and the allocator's gaps


@dataclass(frozen=True)
class Estimate:
    """Mebibytes, but `parameters` is a count."""

    parameters: int  # trained
    base_mib: float  # frozen weights that stay in memory
    trained_mib: float  # trained weights, their gradients, optimizer state and copies in the compute dtype
    activations_mib: float  # kept for the backward pass of one micro-batch
    file_mib: float  # the saved file

    @property
    def total_mib(self) -> int:
        return round((self.base_mib + self.trained_mib + self.activations_mib) * _SLACK + _PROCESS_MIB)


def estimate(config: TrainConfig, family: Family, model: Model, largest_bucket: tuple[int, int]) -> Estimate:
    """For a model that was loaded on the meta device; it is used up by the estimate."""
    method = METHODS[config.method.kind](config.method, config.optimizer)
    method.attach(family, model, config.train.seed)
    if config.train.gradient_checkpointing:
        family.enable_checkpointing(model, config.memory.checkpoint_every)
    parameters = sum(parameter.numel() for group in method.groups() for parameter in group.parameters)
    kept = [
        model.unet,
        *(model.text_encoders.values() if method.trains_text else []),
        *([model.vae] if config.sample.prompts or not caches_latents(config) else []),
    ]
    size = torch.finfo(model.dtype).bits // 8
    state = OPTIMIZERS[config.optimizer.kind].state_bytes + (4 if config.train.ema is not None else 0)
    file_bytes = parameters * torch.finfo(DTYPES[config.save.dtype]).bits // 8
    return Estimate(
        parameters=parameters,
        base_mib=sum(device_bytes(network) for network in kept if network is not None) / MIB,
        trained_mib=parameters * (4 + 4 + state + 2 * size) / MIB,
        activations_mib=_activations(config, family, model, method, largest_bucket) / MIB,
        file_mib=file_bytes / MIB,
    )


def _activations(config: TrainConfig, family: Family, model: Model, method: Method, size: tuple[int, int]) -> int:
    """Bytes that autograd keeps for the backward pass: a forward pass without arithmetic, with every kept tensor counted."""
    kept: dict[int, int] = {}
    networks = (model.unet, *model.text_encoders.values())
    weights = {parameter.untyped_storage()._cdata for network in networks for parameter in network.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:  # a layer may keep a transposed view of its weight
            kept[storage._cdata] = storage.nbytes()
        return tensor

    samples = config.dataset.batch_size
    latents = torch.empty(samples, *family.latent_shape(model, size), device="meta")
    captions = ["a " * model.tokenizer.limit if config.dataset.captions.max_tokens > 75 else ""] * samples
    conditioning = None
    if not method.trains_text:
        with torch.no_grad():
            conditioning = family.encode_text(model, captions)
    sizes = torch.empty(samples, 6, device="meta")
    batch = Batch(("",) * samples, captions, latents, None, conditioning, tuple(range(samples)), sizes=sizes)
    method.before_forward()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), _FusedAttention():
        batch_loss(family, model, batch, make_objective(config.loss, config.noise, model.schedule)).sum()
    return sum(kept.values())


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
