"""What a person sees of a job: progress on standard error, questions, and the summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from convnext_cli.base.text import counted, duration
from convnext_cli.cli import demonstration, model_options, render
from convnext_cli.cli.counts import passed_over
from convnext_cli.jobs.listener import LabelListener, LabelResult

if TYPE_CHECKING:
    from convnext_cli.jobs.actions.request import SortResult
    from convnext_cli.jobs.actions.undo import Undone
    from convnext_cli.jobs.cluster.run import Progress
    from convnext_cli.jobs.job import Tally
    from convnext_cli.jobs.keywords.xmp import Written
    from convnext_cli.predict.options import PredictorOptions
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.rows import Row

WORTH_SAYING = 0.1  # of the time, which another option would save
EVERY = 30.0  # seconds between lines where there is no terminal
MOST_LABELS = 20
MOST_KEPT = 1000  # files that --undo left, which are named


class LabelView(LabelListener):
    """Draws a job on standard error, and asks on a terminal. It is entered while the job runs.

    Args:
        model: as ``-m`` has it; None for the default.
        pull: fetch the model first when it is missing.
        offline: never open a connection.
    """

    def __init__(self, model: str | Path | None, *, pull: bool = False, offline: bool = False) -> None:
        self._model, self._pull, self._offline = model, pull, offline
        self._is_introduced = False
        self._bar = ExitStack()  # the present progress
        self._draw: Callable[[], None] = lambda: None
        self._seen = 0
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_progress()

    def _end_progress(self) -> None:
        self._draw = lambda: None
        self._bar.close()

    def note(self, text: str) -> None:
        render.note(f"note: {text}")

    def stage(self, name: str, total: int | None = None) -> None:
        if render.err().is_terminal and not render.err().quiet:
            self._end_progress()
            self._bar.enter_context(render.err().status(render.clean(name)))

    # before

    def output_chosen(self, output: Path) -> None:
        render.note(f"labels go into {output} (-o FILE names another file)")

    def opening(self, options: PredictorOptions) -> None:
        if self._pull:
            from convnext_cli.cli.models import pull_if_missing

            pull_if_missing(options.model.model, offline=self._offline)

    def opened(self, predictor: Predictor, remarks: list[str]) -> None:
        self._end_progress()
        model_options.check_opened(predictor)
        super().opened(predictor, remarks)

    def allow(self, actions: str) -> None:
        if not _is_asked():
            super().allow(actions)
        demonstration.confirm(actions)
        self._is_introduced = True

    def keeps(self, differences: str) -> bool:
        self._end_progress()
        if not _is_asked():
            super().keeps(differences)
        render.note(f"photos in this output were labelled with other settings: {differences}")
        answer = click.prompt(
            "Label them [a]gain, [k]eep them, or [s]top?",
            type=click.Choice(["a", "k", "s"]),
            show_choices=False,
            err=True,
        )
        if answer == "s":
            raise click.Abort
        return bool(answer == "k")

    def guard(self, notes: Path, timeout: float | None) -> AbstractContextManager[None]:
        from convnext_cli.cli import witness

        return witness.watching(notes, "label", timeout)

    # a round

    def looking(self, photos: int) -> None:
        self._seen = photos
        if not photos:
            self._end_progress()
            self._bar.enter_context(self._looking())
        self._draw()

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Count the photos that the walk comes by: on a terminal, or in a line now and then."""
        if render.err().quiet:
            yield
        elif render.err().is_terminal:
            with render.err().status("looking for photos") as status:
                self._draw = lambda: status.update(f"looking for photos: {self._seen:,}")
                yield
        else:
            with _lines(lambda: f"looking for photos: {self._seen:,} so far"):
                yield

    def labelling(self, tally: Tally) -> None:
        self._end_progress()
        self._bar.enter_context(self._labelling(tally))

    @contextmanager
    def _labelling(self, tally: Tally) -> Iterator[None]:
        """A bar with rate, time left and failures; a line now and then where there is no terminal."""
        console = render.err()
        start = time.monotonic()
        if console.quiet or (console.is_terminal and not tally.todo):
            yield
            return
        if not console.is_terminal:
            with _lines(lambda: _progress(tally, time.monotonic() - start)):
                yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f}/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
        )
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=tally.todo, rate=0.0, failed="")

            def draw() -> None:
                rate = tally.done / max(time.monotonic() - start, 1e-3)
                failed = f"[red]{tally.failed} failed[/]" if tally.failed else ""
                bar.update(task, completed=tally.done, rate=rate, failed=failed)

            self._draw = draw
            yield

    def labelled(self, row: Row) -> None:
        self._draw()

    def interrupted(self, tally: Tally, output: Path | None) -> None:
        self._end_progress()
        stays = f"; {output} stays as it was until all are" if output is not None else ""
        render.note(
            f"{tally.done:,} of {tally.todo:,} photos were labelled{stays}; the same command goes on from there"
        )

    def round_ended(self, result: LabelResult) -> None:
        self._end_progress()
        print_summary(result)

    # afterwards

    def keywords_written(self, written: Written) -> None:
        for failure in written.failures:
            render.note(f"no keywords: {failure.file}: {failure.message}")
        render.note("keywords: " + (_counts(written.counts.items()) or "no photos"))

    def report_written(self, page: Path) -> None:
        render.note(f"report: {page}")

    def photos_sorted(self, result: SortResult) -> None:
        left = f"; left: {_counts(result.left.items())}" if result.left else ""
        render.note(f"sorted into {result.into}: {counted(result.placed, 'photo')} ({result.mode}){left}")
        for reason, number in result.failed.items():
            render.note(f"not sorted: {number:,}: {reason}")
        if result.log is not None:
            render.note(f"take it back with: convnext label --undo {result.log}")

    def sort_planned(self, result: SortResult) -> None:
        """The plan goes to standard output: it is the answer."""
        table = render.table("photo", "label", "to")
        for column in table.columns:
            column.overflow = "fold"  # a path is never cut
        for step in result.steps:
            cells = (step.source, step.label, step.target.relative_to(result.into.parent))
            table.add_row(*(render.clean(str(cell)) for cell in cells))
        render.out().print(table)
        more = f" (the first {len(result.steps):,} are shown)" if result.placed > len(result.steps) else ""
        left = "".join(f"; {number:,} {reason}" for reason, number in result.left.items())
        render.note(f"{counted(result.placed, 'photo')} would be sorted{more}{left}; nothing was touched")

    def watching(self, folders: list[str]) -> None:
        self.introduce()
        render.note(f"watching {', '.join(folders)}; Ctrl-C ends it")

    def stopped_watching(self) -> None:
        self._end_progress()
        render.note("stopped watching")

    def introduce(self) -> None:
        """Say once what the bundled model is, where it answered."""
        if not self._is_introduced:
            self._is_introduced = True
            demonstration.introduce(self._model)

    # a cluster

    def connected(self, dashboard: str | None) -> None:
        if dashboard:
            render.note(f"dashboard: http://{dashboard}")

    def cluster_progress(self, progress: Progress) -> None:
        if self._progress is None:
            self._bar.enter_context(self._cluster())
        self._progress = progress
        self._draw()

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        """A line with the present counts, on a terminal; a line now and then where there is none."""
        console, start = render.err(), time.monotonic()

        def text() -> str:
            progress = self._progress
            return "starting" if progress is None else _cluster_progress(progress, time.monotonic() - start)

        if console.quiet:
            yield
        elif console.is_terminal:
            with console.status("starting") as status:
                self._draw = lambda: status.update(text())
                yield
        else:
            with _lines(text):
                yield

    def cluster_interrupted(self) -> None:
        self._end_progress()
        render.note("the same command goes on with what is missing")


def _is_asked() -> bool:
    """Whether there is a person to ask."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr.isatty())


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


def _cluster_progress(progress: Progress, seconds: float) -> str:
    rate = progress.done / max(seconds, 1e-3)
    listing = "" if progress.listed else ", and listing"
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    before = f", {counted(progress.parts, 'part')} there before" if progress.parts else ""
    return f"{progress.done:,} labelled of {progress.found:,} found{listing}, {rate:.1f}/s{failed}{before}"


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts)


def print_summary(result: LabelResult) -> None:
    """Labels, failures, what was passed over, the rate and what limited it, and where everything lies."""
    if render.err().quiet:
        if failed := result.statuses.get("failed"):
            render.remark(f"{failed:,} of {counted(result.rows, 'photo')} failed; {result.output} says which and why")
        return
    if result.labels:
        table = render.table("label", "photos", right=(1,))
        for name, count in list(result.labels.items())[:MOST_LABELS]:
            table.add_row(render.clean(name), f"{count:,}")
        render.err().print(table)
    if len(result.labels) > MOST_LABELS:
        render.note(f"and {len(result.labels) - MOST_LABELS:,} more labels")
    _print_failures(result)
    if result.passed_over:
        render.note(passed_over(result.passed_over))
    statuses = [f"{number:,} {status}" for status, number in sorted(result.statuses.items())]
    render.note(f"{result.output}: {', '.join([counted(result.rows, 'row'), *statuses])}")
    if not result.done:
        render.note(f"nothing new among {counted(result.found, 'photo')}, in {duration(result.seconds)}")
        return
    temperature = f"; scores by temperature {result.temperature:g}" if result.temperature != 1.0 else ""
    render.note(
        f"{counted(result.done, 'photo')} looked at in {duration(result.seconds)}, "
        f"{result.done / max(result.seconds, 1e-9):.1f}/s; {result.limits}{temperature}"
    )
    if result.close_would_save >= WORTH_SAYING:
        render.note(f"--pixels close would have taken about {100 * result.close_would_save:.0f} % less time")


def print_cluster_summary(result: LabelResult) -> None:
    """Failures, what was passed over, the rate, and where everything lies."""
    _print_failures(result)
    if result.passed_over:
        render.note(passed_over(result.passed_over))
    counts = [counted(result.rows, "row"), *(f"{number:,} {status}" for status, number in result.statuses.items())]
    render.note(f"{result.output}: {', '.join(counts)}, in {counted(result.parts, 'part')}")
    took = f"in {duration(result.seconds)} after {duration(result.starting)} of starting"
    if not result.done:
        render.note(f"nothing new, {took}")
        return
    rate = result.done / max(result.seconds, 1e-9)
    render.note(f"{counted(result.done, 'photo')} labelled {took}, {rate:.1f}/s")


def print_undone(undone: Undone, log: str) -> None:
    """What ``--undo`` took back, and what it left."""
    for kept in undone.kept[:MOST_KEPT]:
        render.note(f"left as it is: {kept.path}: {kept.why}")
    if not (undone.removed or undone.moved_back or undone.folders or undone.kept):
        render.note(f"nothing to take back: {log} was taken back before")
        return
    render.note(
        f"taken back: {undone.removed:,} copies and links, {counted(undone.moved_back, 'photo')} moved back, "
        f"{counted(undone.folders, 'folder')} removed"
        + (f"; {len(undone.kept):,} left as they are" if undone.kept else "")
    )


def _print_failures(result: LabelResult) -> None:
    """How many photos failed, the first of them by name, and where all of them are."""
    if not result.failures:
        return
    render.note(f"failed: {_counts(result.failures.items())}    (--retry-failed tries them again)")
    if not result.first_failures:
        return
    for path, kind, message in result.first_failures:
        render.note(f"  {path}: {kind}: {message}")
    if (more := sum(result.failures.values()) - len(result.first_failures)) > 0:
        render.note(f"  and {more:,} more: the rows of {result.output} with the status failed")
