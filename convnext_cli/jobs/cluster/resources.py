"""Shape: how a cluster's processors and GPUs are shared out between decoding and networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from convnext_cli.base.errors import UnavailableError

Node: TypeAlias = dict[str, Any]  # as ``ray.nodes()`` describes it


@dataclass(frozen=True)
class Shape:
    """networks: actors with one. threads: of each, None for those of a GPU. gpus, cpus: that Ray keeps for each;
    decode: processors for a task that decodes."""

    networks: int
    threads: int | None
    gpus: int
    cpus: float
    decode: float


def shape_of(nodes: Iterable[Node], *, gpu: bool | None, threads: int | None) -> Shape:
    """How many networks the cluster runs, and the resources of each.

    On processors, the network of a group may use all of them, and so may decoding: Ray reserves half for each, and the
    system gives processor time to the one that has work. Beside a GPU, all processors are for decoding: a node may have
    no more of them than it has GPUs.

    Args:
        nodes: as ``ray.nodes()`` returns them.
        gpu: whether networks run on GPUs; None if the cluster has any.
        threads: processors of a group; None for all of the smallest node's.

    Raises:
        UnavailableError: the cluster has nothing to run on.
    """
    alive = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    graphics = int(sum(node.get("GPU", 0) for node in alive))
    if gpu or (gpu is None and graphics):
        if not graphics:
            raise UnavailableError("no node of the cluster has a GPU", "leave -d out, or start nodes with --num-gpus")
        return Shape(graphics, None, 1, 0.0, 1.0)
    cores = [int(node["CPU"]) for node in alive if node.get("CPU", 0) >= 1]
    if not cores:
        raise UnavailableError("no node of the cluster has processors to use", "start nodes with --num-cpus")
    group = min(threads or min(cores), max(cores))
    # a network that asks for half a group finds it on smaller nodes too, down to half of one
    networks = sum(max(number // group, number >= group / 2) for number in cores)
    return Shape(networks, group, 0, group / 2, min(1.0, group / 2))
