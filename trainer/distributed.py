"""Several processes that train one LoRA together: each takes its share of every batch, and all make the same update.

`torchrun` and `accelerate launch` start them and say by environment variables who is who. Every process holds all weights
(data parallelism). What is exchanged: a few numbers per sample, and the sum of the gradients (Li et al. 2020,
arXiv 2006.15704); so the result is that of one process with the batches of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn

from .errors import ConfigError

T = TypeVar("T")
_PATIENCE = timedelta(days=7)  # while one process encodes pictures or draws samples, the others wait


@dataclass(frozen=True)
class Team:
    """The processes of a run; this one is number `rank` of `size`, and number `local_rank` on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes, reports and draws."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """This process's own among devices of a kind. ConfigError where all would have the same one."""
        if self.size == 1 or device.type == "cpu":
            return device
        if device.index is not None:
            raise ConfigError(f"train.device: {device} is one device, but {self.size} processes share the work; set auto")
        return torch.device(device.type, self.local_rank)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order; in each of them. Plain values, not tensors."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        return any(self.gather(flag))

    def lead(self, value: T) -> T:
        """The value of the first process."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each gradient becomes its sum over all processes; one that no process has stays None, so that it is not updated."""
        if self.size == 1:
            return
        present = self.gather([parameter.grad is not None for parameter in parameters])
        used = [parameter for parameter, *found in zip(parameters, *present, strict=True) if any(found)]
        if not used:
            return
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in used if parameter.grad is not None]
        total = torch.cat([gradient.flatten() for gradient in gradients])
        if total.device.type in ("cpu", "cuda"):
            torch.distributed.all_reduce(total)
        else:  # no library of its own: by way of the host
            host = total.cpu()
            torch.distributed.all_reduce(host)
            total = host.to(total.device)
        for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


ALONE = Team()


@contextmanager
def team_of(environment: Mapping[str, str]) -> Iterator[Team]:
    """The team that a launcher describes by WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without them, a team of one."""
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    team = Team(int(environment["RANK"]), size, int(environment.get("LOCAL_RANK", environment["RANK"])))
    on_cuda = torch.cuda.is_available() and torch.cuda.device_count() > team.local_rank
    if on_cuda:
        torch.cuda.set_device(team.local_rank)
    backend = "cpu:gloo,cuda:nccl" if on_cuda and torch.distributed.is_nccl_available() else "gloo"  # Windows has no NCCL
    torch.distributed.init_process_group(backend, rank=team.rank, world_size=size, timeout=_PATIENCE)
    try:
        yield team
    finally:
        torch.distributed.destroy_process_group()
