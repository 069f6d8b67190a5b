"""What a person sees of a job: progress on standard error, and the summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from convnext_cli.base.text import counted as counted
from convnext_cli.base.text import duration as duration
from convnext_cli.cli import render

if TYPE_CHECKING:
    from convnext_cli.jobs.job import Tally
    from convnext_cli.jobs.store import Store
    from convnext_cli.photos.find import Finder
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.rows import Row

EVERY = 30.0  # seconds between lines where there is no terminal
MOST_FAILURES = 10  # that are named at the end
MOST_LABELS = 20


@contextmanager
def looking() -> Iterator[Callable[[int], None]]:
    """Count the photos that the walk comes by: on a terminal, or in a line now and then where there is none."""
    seen = [0]

    def count(photos: int) -> None:
        seen[0] = photos

    if render.err().quiet:
        yield count
    elif render.err().is_terminal:
        with render.err().status("looking for photos") as status:
            yield lambda photos: status.update(f"looking for photos: {photos:,}")
    else:
        with _lines(lambda: f"looking for photos: {seen[0]:,} so far"):
            yield count


@contextmanager
def labelling(tally: Tally) -> Iterator[Callable[[Row], None]]:
    """A bar with rate, time left and failures; a line now and then where there is no terminal; nothing under -q."""
    console = render.err()
    start = time.monotonic()
    if not console.quiet and not console.is_terminal:
        with _lines(lambda: _progress(tally, time.monotonic() - start)):
            yield lambda _: None
        return
    if console.quiet or not tally.todo:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=tally.todo, rate=0.0, failed="")

        def tell(_: Row) -> None:
            rate = tally.done / max(time.monotonic() - start, 1e-3)
            failed = f"[red]{tally.failed} failed[/]" if tally.failed else ""
            progress.update(task, completed=tally.done, rate=rate, failed=failed)

        yield tell


@contextmanager
def _lines(text: Callable[[], str]) -> Iterator[None]:
    """A line now and then while something goes on, however long one photo takes."""
    ended = Event()

    def write() -> None:
        while not ended.wait(EVERY):
            render.note(text())

    thread = Thread(target=write, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _progress(tally: Tally, seconds: float) -> str:
    rate = tally.done / max(seconds, 1e-3)
    left = f"{duration((tally.todo - tally.done) / rate)} left, " if rate else ""
    return f"{tally.done:,} of {tally.todo:,} photos, {rate:.1f}/s, {left}{tally.failed:,} failed"


def summary(store: Store, predictor: Predictor, finder: Finder, tally: Tally, seconds: float, target: Path) -> None:
    """Labels, failures, what was passed over, the rate and what limited it, and where everything lies."""
    labels, statuses, failures = store.labels(), store.statuses(), store.failures()
    if render.err().quiet:
        if failed := statuses.get("failed"):
            render.remark(
                f"{failed:,} of {counted(sum(statuses.values()), 'photo')} failed; {target} says which and why"
            )
        return
    if labels:
        table = render.table("label", "photos", right=(1,))
        for name, count in list(labels.items())[:MOST_LABELS]:
            table.add_row(render.clean(name), f"{count:,}")
        render.err().print(table)
    if len(labels) > MOST_LABELS:
        render.note(f"and {len(labels) - MOST_LABELS:,} more labels")
    if failures:
        _name_failures(store, failures, target)
    if finder.passed_over:
        render.note(passed_over(finder))
    parts = [counted(sum(statuses.values()), "row"), *(f"{n:,} {status}" for status, n in sorted(statuses.items()))]
    render.note(f"{target}: {', '.join(parts)}")
    if not tally.done:
        render.note(f"nothing new among {counted(tally.found, 'photo')}, in {duration(seconds)}")
        return
    times = predictor.times
    render.note(
        f"{counted(tally.done, 'photo')} looked at in {duration(seconds)}, "
        f"{tally.done / max(seconds, 1e-9):.1f}/s; "
        f"{times.limiting()} limits ({times.shares()})"
        + (f"; scores by temperature {predictor.temperature:g}" if predictor.temperature != 1.0 else "")
    )


def _name_failures(store: Store, failures: dict[str, int], target: Path) -> None:
    """How many photos failed, the first of them by name, and where all of them are."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in failures.items())
    render.note(f"failed: {kinds}    (--retry-failed tries them again)")
    for path, kind, message in store.first_failures(MOST_FAILURES):
        render.note(f"  {path}: {kind}: {message}")
    if (more := sum(failures.values()) - MOST_FAILURES) > 0:
        render.note(f"  and {more:,} more: the rows of {target} with the status failed")


def passed_over(finder: Finder) -> str:
    """The files that were left alone, by type."""
    total = finder.passed_over.total()
    kinds = [
        counted(count, kind) if kind.endswith("folder") else f"{count} {kind}"
        for kind, count in finder.passed_over.most_common()
    ]
    more = f", {len(kinds) - 20} more types" if len(kinds) > 20 else ""
    return f"passed over: {total} file{'s' * (total != 1)} ({', '.join(kinds[:20])}{more})"
