"""``convnext label --cluster``: the same job on a Ray cluster, into a folder of parquet files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import demonstration, label_view, options, render

if TYPE_CHECKING:
    from convnext_cli.jobs.cluster.run import Progress
    from convnext_cli.photos.find import Finder
    from convnext_cli.predict.predictor import Predictor

# What is about files of this machine, about one job's order, or about its times.
_NOT_THERE = (
    "sort_into",
    "xmp",
    "report",
    "undo",
    "dry_run",
    "xmp_remove",
    "watch",
    "strict",
    "mix",
    "nice",
    "batch_size",
    "workers",
    "rewrite",
)


def label(given: dict[str, Any], finder: Finder) -> int:
    """Run the job; the exit status. Raises ConvNextError."""
    from convnext_cli.jobs.cluster import connect, coordinator
    from convnext_cli.jobs.cluster.parts import Parts
    from convnext_cli.jobs.cluster.run import ClusterJob
    from convnext_cli.jobs.cluster.source import Source

    start, here = time.monotonic(), str(Path.cwd())
    far, listing = given["cluster"] != "auto", given["files_from"]
    source = Source(finder, tuple(given["paths"]), None if listing is None else listing.read(), given["null"])
    if not far:
        source.photos()  # what is mistyped is said before a cluster is waited for
        Parts(given["output"]).check()
    with connect.connected(given["cluster"], given["threads"]) as dashboard:
        if dashboard:
            render.note(f"dashboard: http://{dashboard}")
        gpu = None if given["device"] == "auto" else given["device"].startswith("cuda")
        shape = partial(connect.shape, gpu=gpu, threads=given["threads"])
        opener = _Opener({name: value for name, value in given.items() if name != "files_from"}, here)
        found, preprocessor, notes = connect.looked_at(opener, shape())
        for note in notes:
            render.note(f"note: {note}")
        begun = time.monotonic()
        with _telling() as tell:
            job = ClusterJob(
                source,
                target=given["output"],
                shape=shape,
                opener=opener,
                described=found,
                preprocessor=preprocessor,
                folder=here,
                relabel=given["relabel"],
                retry_failed=given["retry_failed"],
                overwrite=given["overwrite"],
            )
            try:
                manifest, passed_over, progress = coordinator.run(job, tell, far=far)
            except KeyboardInterrupt:
                if given["overwrite"]:
                    render.note(f"the earlier result in {given['output']} is kept; the same command begins again")
                else:
                    render.note("the same command goes on with what is missing")
                raise
    finder.passed_over.update(passed_over if far else {})
    _summary(manifest, progress, finder, given["output"], begun - start, time.monotonic() - begun)
    demonstration.introduce(given["model"])
    return 1 if manifest["statuses"].get("failed") else 0


def check(given: dict[str, Any]) -> None:
    """Raises UsageError for what does not go with a cluster, UnavailableError without Ray."""
    from convnext_cli.base.errors import UsageError
    from convnext_cli.jobs.cluster import connect

    unused = [name for name in _NOT_THERE if not any(given[name] is none for none in (None, False, ()))]  # 0 is a value
    if given["verbose"] == 1:  # -vv shows tracebacks
        unused.append("verbose")
    for name in unused:
        raise UsageError(f"--{name.replace('_', '-')} does not go with --cluster", "leave one of them out")
    if given["form"] not in (None, "parquet"):
        raise UsageError("a cluster writes parquet", "leave -f out")
    if os.path.isfile(given["output"]):  # noqa: PTH113
        raise UsageError(f"{given['output']} is a file; a cluster writes a folder of them", "name a folder with -o")
    if "-" in given["paths"]:
        raise UsageError("standard input does not go with --cluster", "name a folder or a bucket")
    connect.check(given["cluster"])
    options.needs("pyarrow")


class _Opener:
    """Opens, on whatever node, the pipeline that the options ask for. folder: that relative paths begin from."""

    def __init__(self, given: dict[str, Any], folder: str) -> None:
        self._given, self._folder = given, folder

    def __call__(self, threads: int | None) -> Predictor:
        from contextlib import suppress

        from convnext_cli.cli import model_options

        with suppress(OSError):
            os.chdir(self._folder)  # a node that has no such folder has no files named from it either
        return model_options.predictor(
            {**self._given, "threads": threads, "workers": None}, job="throughput", prepare=True
        )


@contextmanager
def _telling() -> Iterator[Callable[[Progress], None]]:
    """A line with what was done, on a terminal; a line now and then where there is none; nothing under -q."""
    console, start = render.err(), time.monotonic()
    if console.quiet:
        yield lambda _: None
        return

    def said(progress: Progress) -> str:
        rate = progress.done / max(time.monotonic() - start, 1e-3)
        more = "" if progress.listed else ", and listing"
        failed = f", {progress.failed:,} failed" if progress.failed else ""
        there = f", {label_view.counted(progress.parts, 'part')} there before" if progress.parts else ""
        return f"{progress.done:,} labelled of {progress.found:,} found{more}, {rate:.1f}/s{failed}{there}"

    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda progress: status.update(said(progress))
        return
    last = start

    def tell(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= label_view.EVERY:
            last = time.monotonic()
            render.note(said(progress))

    yield tell


def _summary(
    manifest: dict[str, Any], progress: Progress, finder: Finder, target: str, start: float, seconds: float
) -> None:
    """start: what the cluster took to begin."""
    if manifest["failures"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in manifest["failures"].items())
        render.note(f"failed: {kinds}    (--retry-failed tries them again)")
    if finder.passed_over:
        render.note(label_view.passed_over(finder))
    statuses = [f"{count:,} {status}" for status, count in manifest["statuses"].items()]
    rows = label_view.counted(manifest["rows"], "row")
    render.note(f"{target}: {', '.join([rows, *statuses])}, in {label_view.counted(len(manifest['parts']), 'part')}")
    took = f"in {label_view.duration(seconds)} after {label_view.duration(start)} of starting"
    if not progress.done:
        render.note(f"nothing new, {took}")
        return
    rate = progress.done / max(seconds, 1e-9)
    render.note(f"{label_view.counted(progress.done, 'photo')} labelled {took}, {rate:.1f}/s")


option = click.option(
    "--cluster",
    metavar="auto|ray://HOST:PORT",
    help="On a Ray cluster, into a folder of parquet files, here or behind a URL (extra ray).",
)
