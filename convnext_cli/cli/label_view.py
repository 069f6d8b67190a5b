"""What a person sees of a job: progress on standard error, questions, and the summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from convnext_cli.base.text import counted, duration
from convnext_cli.cli import demonstration, model_options, render
from convnext_cli.cli.label_summary import print_summary, words
from convnext_cli.jobs.listener import LabelListener, LabelResult

if TYPE_CHECKING:
    from convnext_cli.jobs.actions.request import SortResult
    from convnext_cli.jobs.cluster.run import Progress
    from convnext_cli.jobs.job import Tally
    from convnext_cli.jobs.keywords.xmp import Written
    from convnext_cli.predict.options import PredictorOptions
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.rows import Row

EVERY = 30.0  # seconds between lines where there is no terminal


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
        render.note(f"writing labels to {output} (-o FILE names another file)")

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
        stays = f"; {output} was not changed, and is replaced once all are labelled" if output is not None else ""
        render.note(
            f"{tally.done:,} of {tally.todo:,} photos were labelled{stays}; run the same command again to resume"
        )

    def round_ended(self, result: LabelResult) -> None:
        self._end_progress()
        print_summary(result)

    # afterwards

    def keywords_written(self, written: Written) -> None:
        for failure in written.failures:
            render.note(f"no keywords: {failure.file}: {failure.message}")
        render.note("keywords: " + (words(written.counts.items()) or "no photos"))

    def report_written(self, page: Path) -> None:
        render.note(f"report: {page}")

    def photos_sorted(self, result: SortResult) -> None:
        left = f"; left: {words(result.left.items())}" if result.left else ""
        render.note(f"sorted into {result.into}: {counted(result.placed, 'photo')} ({result.mode}){left}")
        for reason, number in result.failed.items():
            render.note(f"not sorted: {number:,}: {reason}")
        if result.log is not None:
            render.note(f"undo it with: convnext label --undo {result.log}")

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
        render.note(f"watching {', '.join(folders)}; press Ctrl-C to stop")

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
        render.note("run the same command again to resume")


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
    before = f", {counted(progress.parts, 'part')} from earlier runs" if progress.parts else ""
    return f"{progress.done:,} labelled of {progress.found:,} found{listing}, {rate:.1f}/s{failed}{before}"
