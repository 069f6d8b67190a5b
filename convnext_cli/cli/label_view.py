"""What a person sees of a job: progress on standard error, and the summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.cli import render

if TYPE_CHECKING:
    from convnext_cli.labelling.job import Tally
    from convnext_cli.labelling.store import Store
    from convnext_cli.photos.find import Finder
    from convnext_cli.pipeline import Pipeline
    from convnext_cli.rows import Row

EVERY = 60.0  # seconds between lines where there is no terminal
MOST_LABELS = 20


@contextmanager
def looking() -> Iterator[Callable[[int], None]]:
    """Count the photos that the walk comes by, on a terminal."""
    if not render.err().is_terminal or render.err().quiet:
        yield lambda _: None
        return
    with render.err().status("looking for photos") as status:
        yield lambda seen: status.update(f"looking for photos: {seen:,}")


@contextmanager
def labelling(tally: Tally) -> Iterator[Callable[[Row], None]]:
    """A bar with rate, time left and failures; a line a minute where there is no terminal; nothing under -q."""
    console = render.err()
    if console.quiet or not tally.todo:
        yield lambda _: None
        return
    if not console.is_terminal:
        yield _lines(tally)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    start = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=tally.todo, rate=0.0, failed="")

        def tell(_: Row) -> None:
            rate = tally.done / max(time.monotonic() - start, 1e-3)
            failed = f"[red]{tally.failed} failed[/]" if tally.failed else ""
            progress.update(task, completed=tally.done, rate=rate, failed=failed)

        yield tell


def _lines(tally: Tally, clock: Callable[[], float] = time.monotonic) -> Callable[[Row], None]:
    start = last = clock()

    def tell(_: Row) -> None:
        nonlocal last
        now = clock()
        if now - last >= EVERY:
            last = now
            rate = tally.done / (now - start)
            left = duration((tally.todo - tally.done) / rate)
            render.note(f"{tally.done:,} of {tally.todo:,} photos, {rate:.1f}/s, {left} left, {tally.failed:,} failed")

    return tell


def counted(number: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """As people say it: 3 s, 12 min, 5 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def summary(store: Store, pipeline: Pipeline, finder: Finder, tally: Tally, seconds: float, target: Path) -> None:
    """Labels, failures, what was passed over, the rate and what limited it, and where everything lies."""
    if render.err().quiet:
        return
    labels, statuses, failures = store.labels(), store.statuses(), store.failures()
    if labels:
        table = render.table("label", "photos", right=(1,))
        for name, count in list(labels.items())[:MOST_LABELS]:
            table.add_row(render.clean(name), f"{count:,}")
        render.err().print(table)
    if len(labels) > MOST_LABELS:
        render.note(f"and {len(labels) - MOST_LABELS:,} more labels")
    if failures:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in failures.items())
        render.note(f"failed: {kinds}    (--retry-failed takes them up again)")
    if finder.passed_over:
        render.note(passed_over(finder))
    parts = [counted(sum(statuses.values()), "row"), *(f"{n:,} {status}" for status, n in sorted(statuses.items()))]
    render.note(f"{target}: {', '.join(parts)}")
    if not tally.done:
        render.note(f"nothing new among {counted(tally.found, 'photo')}, in {duration(seconds)}")
        return
    times = pipeline.times
    render.note(
        f"{counted(tally.done, 'photo')} looked at in {duration(seconds)}, "
        f"{tally.done / max(seconds, 1e-9):.1f}/s; "
        f"{times.limiting()} limits ({times.shares()})"
        + (f"; scores by temperature {pipeline.temperature:g}" if pipeline.temperature != 1.0 else "")
    )


def passed_over(finder: Finder) -> str:
    """The files that were left alone, by type."""
    total = finder.passed_over.total()
    kinds = [
        counted(count, kind) if kind.endswith("folder") else f"{count} {kind}"
        for kind, count in finder.passed_over.most_common()
    ]
    more = f", {len(kinds) - 20} more types" if len(kinds) > 20 else ""
    return f"passed over: {total} file{'s' * (total != 1)} ({', '.join(kinds[:20])}{more})"
