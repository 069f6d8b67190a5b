"""What a person sees of ``classify``: rows, failures, and the summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convnext_cli.cli import counts, render, row_stream
from convnext_cli.predict import writers

if TYPE_CHECKING:
    from convnext_cli.predict.classify import Classification
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.rows import Row
    from convnext_cli.predict.stage_times import Times
    from convnext_cli.predict.writers import Columns
    from convnext_cli.runtimes.protocol import Engine

MOST_FAILURES = 10  # that are named


def write_rows(classification: Classification, form: str, output: str | None, *, columns: Columns, quiet: bool) -> None:
    """Print or write each row as soon as it is there, and report the failures at the end.

    Args:
        classification: the rows to come.
        form: "table", "lines", or a format of ``writers.FORMATS``.
        output: the file; None for standard output.
        columns: what flat formats have columns for.
        quiet: whether ``-q`` was given.
    """
    predictor, failures = classification.predictor, Failures()
    rows = failures.kept(classification.rows)
    if form == "table":
        _print_tables(predictor, rows)
    else:
        _write(_counted(predictor, rows) if output is not None else rows, form, output, columns)
    failures.report(predictor.times.photos, quiet=quiet)


@dataclass
class Failures:
    """The first photos that failed, and how many did."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def kept(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            self.note(row)
            yield row

    def note(self, row: Row) -> None:
        """Count a row if it is that of a photo that failed."""
        if row.error is not None:
            self.count += 1
            if len(self.first) < MOST_FAILURES:
                self.first.append(f"{row.path}: {row.error.kind}: {row.error.message}")

    def report(self, photos: int, *, quiet: bool) -> None:
        """Name them on standard error; with -q only their number."""
        if not self.count:
            return
        if quiet:
            what = "the photo" if photos == 1 else f"{self.count:,} of {photos:,} photos"
            render.error(f"{what} failed", f"without -q {'it is' if self.count == 1 else 'they are'} named")
            return
        for line in self.first:
            render.note(f"failed: {line}")
        if more := self.count - len(self.first):
            render.note(f"failed: {more:,} more; -f jsonl names all")


def _print_tables(predictor: Predictor, rows: Iterator[Row]) -> None:
    console = render.out()
    bars = console.is_terminal and not console.is_dumb_terminal and predictor.scores != "logits"
    for row in rows:
        render.print_row(row, bars=bars)
        sys.stdout.flush()


def _write(rows: Iterator[Row], form: str, output: str | None, columns: Columns) -> None:
    from convnext_cli.cli.plain_lines import LinesWriter

    with row_stream.opened(output) as stream:
        writer = LinesWriter(stream, columns.k) if form == "lines" else writers.FORMATS[form].writer(stream, columns)
        try:
            for row in rows:
                writer.write(row)
                if form != "parquet":
                    stream.flush()
        finally:
            writer.close()


def _counted(predictor: Predictor, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, with a count on the terminal."""
    if not render.err().is_terminal or render.err().quiet:
        yield from rows
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.completed} photos, {task.fields[failed]} failed"), TimeElapsedColumn()
    with Progress(*columns, console=render.err(), transient=True) as progress:
        task = progress.add_task("", total=None, failed=0)
        for row in rows:
            yield row
            progress.update(task, advance=1, failed=predictor.times.failed)


def print_summary(classification: Classification, seconds: float) -> None:
    """The model, and how many photos were labelled in which time."""
    predictor = classification.predictor
    times, card, size = predictor.times, predictor.engine.card, predictor.preprocessor.preprocessing.size
    if classification.passed_over:
        render.note(counts.passed_over(classification.passed_over))
    names = predictor.labels.name or "own labels"
    render.note(
        f"{card.name or predictor.model}: {card.architecture or 'ConvNeXt'}, {len(predictor.labels.names)} labels "
        f"({names}), {size[1]}×{size[0]} · {times.photos} photo{'s' * (times.photos != 1)}"
        + (f", {times.failed} failed" if times.failed else "")
        + (f", {times.unknown} unknown" if times.unknown else "")
        + f" in {seconds:.1f} s"
    )


def print_times(predictor: Predictor, seconds: float) -> None:
    """How photos were preprocessed, the engine, and the time of each stage."""
    times, engine, steps = predictor.times, predictor.engine, predictor.preprocessor.preprocessing
    compiled = ", compiled," if getattr(engine, "compiled", False) else ""
    render.note(
        f"preprocessing: {steps.describe()}; pixels {predictor.preprocessor.pixels}; "
        f"logits divided by {predictor.temperature:g}\n"
        f"engine: {engine.name}{compiled} on {engine.device} in {engine.dtype}, batches of {predictor.batch_size}, "
        f"{predictor.threads} threads, {predictor.preprocessor.workers} of them decode{_measured(engine)}\n"
        f"times: start {seconds - times.wall:.2f} s; read {times.read:.2f} s{_readers(times)}, "
        f"decode {times.decode:.2f} s, "
        f"prepare {times.prepare:.2f} s (over {times.workers} threads), network {times.engine:.2f} s\n"
        f"the {times.limiting()} limits"
    )


def _measured(engine: Engine) -> str:
    """The figures behind an automatic choice of the engine."""
    from convnext_cli.runtimes import cache

    choice = cache.choice(engine.card, engine.dtype) if engine.device == "cpu" else None
    if choice is None:
        return ""
    jobs = {"latency": "one photo", "throughput": "a folder"}
    return "".join(
        f"\nmeasured for {words}: "
        + ", ".join(f"{name} {ms:.1f} ms" for name, ms in choice.measured.get(job, {}).items())
        for job, words in jobs.items()
    )


def _readers(times: Times) -> str:
    return f" (over {times.readers} threads)" if times.readers > times.workers else ""
