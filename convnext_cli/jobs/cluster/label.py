"""``label`` on a Ray cluster: the same job, into a folder of parquet files."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import UsageError
from convnext_cli.base.libraries import needs
from convnext_cli.jobs.cluster import connect, coordinator
from convnext_cli.jobs.cluster.parts import Parts
from convnext_cli.jobs.cluster.run import ClusterJob
from convnext_cli.jobs.cluster.source import Source
from convnext_cli.jobs.listener import LabelListener, LabelResult
from convnext_cli.jobs.request import ClusterOptions, LabelRequest
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.predictor import Predictor
from convnext_cli.zoo.pull import pull_missing

if TYPE_CHECKING:
    from convnext_cli.zoo import Entry


@dataclass(frozen=True)
class NodeOpener:
    """Opens, on whatever node, the predictor that is asked for.

    Args:
        options: which predictor.
        folder: that relative paths begin from.
        pull: fetch the model where it is missing.
        offline: never open a connection.
    """

    options: PredictorOptions
    folder: str
    pull: bool = False
    offline: bool = False

    def __call__(self, threads: int | None) -> Predictor:
        with suppress(OSError):
            os.chdir(self.folder)  # a node without that folder has no files named from it either
        model = replace(self.options.model, threads=threads)
        if self.pull:
            pull_missing(model.model, agree=_refuse_terms, offline=self.offline)
        decoding = replace(self.options.decoding, workers=None)
        options = replace(self.options, model=model, decoding=decoding)
        return open_predictor(options, job="throughput", prepare=True)


def label_on_cluster(request: LabelRequest, cluster: ClusterOptions, listener: LabelListener) -> LabelResult:
    """Label on a cluster what is missing in a folder of parts.

    Args:
        request: what to do.
        cluster: where.
        listener: hears how it gets on.

    Raises:
        ConvNextError: it cannot be done; the parts that were written are kept.
    """
    output = check_options(request, cluster)
    start, here = time.monotonic(), str(Path.cwd())
    is_far = cluster.address != "auto"
    model = request.predictor.model
    finder = request.photos.finder(shards="kept")
    source = Source(finder, request.photos.paths, request.photos.read_list(), request.photos.null)
    if not is_far:
        source.photos()  # a misspelt path is reported before a cluster is waited for
        Parts(output).check()
    with connect.connected(cluster.address, model.threads) as dashboard:
        listener.connected(dashboard)
        gpu = None if model.device == "auto" else model.device.startswith("cuda")
        shape = partial(connect.shape, gpu=gpu, threads=model.threads)
        opener = NodeOpener(request.predictor, here, pull=cluster.pull, offline=request.photos.offline)
        opened = connect.looked_at(opener, shape())
        for note in opened.notes:
            listener.note(note)
        begun = time.monotonic()
        job = ClusterJob(
            source,
            target=output,
            shape=shape,
            opener=opener,
            described=opened.described,
            view=opened.view,
            preprocessor=opened.preprocessor,
            folder=here,
            relabel=request.relabel,
            retry_failed=request.retry_failed,
            overwrite=request.overwrite,
        )
        try:
            manifest, passed_over, progress = coordinator.run(job, listener.cluster_progress, far=is_far)
        except KeyboardInterrupt:
            listener.cluster_interrupted()
            raise
    return LabelResult(
        output=output,
        statuses=manifest["statuses"],
        failures=manifest["failures"],
        passed_over=dict(passed_over.most_common()),
        photos=progress.found,
        done=progress.done,
        seconds=time.monotonic() - begun,
        starting=begun - start,
        parts=len(manifest["parts"]),
    )


def check_options(request: LabelRequest, cluster: ClusterOptions) -> str:
    """Refuse what does not go with a cluster; the folder or URL of the output.

    Args:
        request: what to do.
        cluster: where.

    Raises:
        UsageError: an option cannot take effect.
        UnavailableError: a library is missing.
    """
    if request.output is None:
        raise UsageError(
            "the output has no name",
            "name it with -o, for example -o labels: a later run resumes from it",
        )
    # what is about files of this machine, or about one job's order
    local = {
        "--sort-into": request.sort,
        "--xmp": request.keywords,
        "--report": request.report,
        "--rewrite": request.rewrite,
        "--watch": request.watch,
        "--strict": request.strict,
        "--mix": request.mix,
        "--nice": request.nice,
        "--batch-size": request.predictor.model.batch_size,
        "--workers": request.predictor.decoding.workers,
    }
    for option, value in local.items():
        if value is not None and value is not False:  # 0 is a value
            raise UsageError(f"{option} cannot be combined with --cluster", "leave one of them out")
    if request.format not in (None, "parquet"):
        raise UsageError("a cluster writes parquet", "leave -f out")
    output = str(request.output)
    if os.path.isfile(output):  # noqa: PTH113 - surrogates
        raise UsageError(f"{output} is a file; a cluster writes a folder of them", "name a folder with -o")
    request.photos.check_walking()
    request.photos.check_list()
    connect.check(cluster.address)
    needs("pyarrow")
    return output


def _refuse_terms(entry: Entry) -> None:
    """Nobody can accept a licence on a node. Raises UsageError where one asks for something."""
    if entry.terms:
        raise UsageError(
            f"{entry.name} has a licence whose terms must be accepted: {entry.license}: {entry.terms}",
            f"to accept it: convnext models pull {entry.name} --yes",
        )
