"""Coordinator: where the job runs that hands the work out: in this process, or on the cluster for one far away."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from convnext_cli.base.errors import NetworkError
from convnext_cli.jobs.cluster.parts import Manifest
from convnext_cli.jobs.cluster.run import ClusterJob, Progress, cause_of

ASKED_EVERY = 1.0  # seconds


class Coordinator:
    """Runs a job in its own process, and reports its progress when asked."""

    def __init__(self, job: ClusterJob) -> None:
        self._job = job

    def run(self) -> tuple[Manifest, Counter[str]]:
        """The manifest, and how many files of each type were skipped."""
        with suppress(OSError):
            os.chdir(self._job.folder)  # a node without that folder has no files named from it either
        return self._job.run(), self._job.source.finder.passed_over

    def progress(self) -> Progress:
        return self._job.progress


def run(job: ClusterJob, tell: Callable[[Progress], None], *, far: bool) -> tuple[Manifest, Counter[str], Progress]:
    """Run a job to its end: its manifest, what was passed over, and its progress.

    far: on a node, since Ray Data cannot be driven through ``ray://``; it ends with this process. Raises what
    ``ClusterJob.run`` raises, and NetworkError when that node is lost.
    """
    if not far:
        job.tell = tell
        return *Coordinator(job).run(), job.progress
    import ray
    from ray.exceptions import RayError

    remote: Any = ray.remote  # whose types know no options of actors
    coordinator = remote(num_cpus=0, max_concurrency=2)(Coordinator).remote(job)
    answer = coordinator.run.remote()
    try:
        while not ray.wait([answer], timeout=ASKED_EVERY)[0]:
            tell(ray.get(coordinator.progress.remote()))
        manifest, passed_over = ray.get(answer)
        return manifest, passed_over, ray.get(coordinator.progress.remote())
    except (RayError, ConnectionError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise cause_of(error) or NetworkError(
            f"the cluster was lost: {lines[-1]}", "run the same command again to resume"
        ) from error
