"""One process or several: what torchrun started them as, and the few things that they tell each other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from convnext_cli.base.errors import UsageError
from convnext_cli.base.threads import environment_number
from convnext_cli.runtimes.torch.devices import pick_device

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """rank: of this one, from 0. world: how many there are. device: of this one."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one writes files and tells."""
        return self.rank == 0

    def shared(self, *values: float) -> list[float]:
        """Numbers of the first process, for all: what clocks and people say must be the same everywhere."""
        if self.world == 1:
            return list(values)
        wire = torch.tensor(values, dtype=torch.float64, device=self._wire())
        dist.broadcast(wire, 0)
        return [float(value) for value in wire.tolist()]

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self.world == 1:
            return value
        wire = torch.tensor([value], dtype=torch.float64, device=self._wire())
        dist.all_reduce(wire)
        return float(wire.item())

    def gathered(self, value: T) -> list[T]:
        """A value of each process, by rank; on the CPU."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _wire(self) -> torch.device:
        """Where NCCL wants numbers that are sent."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")


def started() -> int:
    """How many processes torchrun started; 1 without it."""
    return environment_number("WORLD_SIZE", 1) if "RANK" in os.environ else 1


def join(device: str) -> Processes:
    """Join the others that torchrun has started; alone without it. device: as for ``pick_device``.

    Raises UnavailableError for a device that is not there.
    """
    if started() == 1:
        return Processes(0, 1, pick_device(device))
    if device.startswith("cuda:"):
        raise UsageError("under torchrun each process uses the GPU with its own number", "use -d cuda")
    picked = pick_device(device)
    if picked.type == "cuda":
        picked = torch.device("cuda", environment_number("LOCAL_RANK", 0))
        torch.cuda.set_device(picked)
    # the others wait while the first one measures what came of it
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo", timeout=timedelta(hours=6))
    return Processes(dist.get_rank(), dist.get_world_size(), picked)
