"""What a person sees of an evaluation: read from its document."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from convnext_cli.cli import evaluate_sure_view, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress, TaskID
    from rich.table import Table

    from convnext_cli.base.errors import PhotoError
    from convnext_cli.base.text import JsonObject
ROWS = 10  # of a table: pairs, classes
MOST_FAILURES = 10  # that are named


class ProgressBars(render.Notes):
    """Prints notes, and draws a bar for each model on a terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def stage(self, name: str, total: int | None = None) -> None:
        if not render.err().is_terminal or render.err().quiet:
            return
        if self._progress is None:
            self._progress = _progress()
            self._progress.start()
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task, self._failed = self._progress.add_task(render.clean(name), total=total, failed=""), 0

    def advance(self, done: int = 1, *, failed: int = 0) -> None:
        if self._progress is None or self._task is None:
            return
        self._failed += failed
        text = f"[red]{self._failed} failed[/]" if self._failed else ""
        self._progress.update(self._task, advance=done, failed=text)


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
        console=render.err(),
        transient=True,
    )


def print_failures(failures: Sequence[tuple[str, PhotoError]], heading: str) -> None:
    """The first photos that could not be read, and how many more there are, on standard error."""
    for path, error in failures[:MOST_FAILURES]:
        render.note(f"{heading}: {path}: {error.kind}: {error.message}")
    if more := len(failures[MOST_FAILURES:]):
        render.note(f"{heading}: {more:,} more; --json names all")


def print_document(document: JsonObject, *, as_json: bool) -> None:
    """On standard output, as JSON or as tables."""
    if as_json:
        from convnext_cli.evaluation.output_folder import to_bytes

        sys.stdout.buffer.write(to_bytes(document))
        sys.stdout.buffer.flush()
        return
    from convnext_cli.evaluation.document import title

    console = render.out()
    console.print(f"[bold]{render.clean(title(document))}[/]", soft_wrap=True)
    _accuracy(document)
    if "difference" in document:
        _difference(document)
    evaluate_sure_view.print_promises(models_of(document))
    _pairs(document)
    _classes(document)
    _thresholds(document)


def models_of(document: JsonObject) -> list[JsonObject]:
    """The part of each model: one, or two."""
    return [document, *([document["against"]] if "against" in document else [])]


def _accuracy(document: JsonObject) -> None:
    models = models_of(document)
    named = ("model",) if len(models) > 1 else ()
    first = 1 + len(named)
    table = render.table("", *named, "%", "95 %", "photos", right=(first, first + 1, first + 2))

    def rows(what: str, cells: list[tuple[str, ...] | None]) -> None:
        heading = what
        for model, more in zip(models, cells, strict=True):
            if more is not None:
                name = (render.clean(model["model"]),) if named else ()
                table.add_row(heading, *name, *more)
                heading = ""

    rows("top-1", [_share(model["top1"]) for model in models])
    rows("top-5", [model["top5"] and _share(model["top5"]) for model in models])
    rows("ReaL top-1", [model["real"] and _share(model["real"]["top1"]) for model in models])
    rows("ReaL top-5", [model["real"] and model["real"]["top5"] and _share(model["real"]["top5"]) for model in models])
    errors = [model["calibration"]["ece"] for model in models]
    rows("ECE", [None if error is None else (f"{error:.3f}",) for error in errors])
    render.out().print(table)


def _share(share: JsonObject) -> tuple[str, str, str] | None:
    if share["value"] is None:  # of no photos
        return None
    interval = f"{_percent(share['low'])} to {_percent(share['high'])}"
    return _percent(share["value"]), interval, f"{share['right']:,} of {share['photos']:,}"


def _difference(document: JsonObject) -> None:
    difference = document["difference"]
    if difference["top1"] is None:
        return
    verdict = "significant" if difference["low"] > 0 or difference["high"] < 0 else "not significant"
    render.out().print(
        f"\ndifference in top-1: {100 * difference['top1']:+.2f} points, {100 * difference['low']:+.2f} to "
        f"{100 * difference['high']:+.2f}: {verdict}; right by one alone {difference['first_alone_right']:,} and "
        f"{difference['second_alone_right']:,}, McNemar's mid-p {difference['p']:.2g}",
        soft_wrap=True,
    )


def _pairs(document: JsonObject) -> None:
    pairs = document["pairs"]
    if not pairs:
        return
    photos = {figures["label"]: figures["photos"] for figures in document["classes"]}
    table = render.table("most confused", "taken for", "photos", "of", right=(2, 3))
    for pair in pairs[:ROWS]:
        cells = render.clean(pair["true"]), render.clean(pair["answer"])
        table.add_row(*cells, f"{pair['photos']:,}", f"{photos[pair['true']]:,}")
    _print(table, len(pairs), "pairs")


def _classes(document: JsonObject) -> None:
    classes = sorted(document["classes"], key=lambda figures: figures["recall"])
    if not classes:
        return
    table = render.table("worst classes", "photos", "recall %", "precision %", right=(1, 2, 3))
    for figures in classes[:ROWS]:
        precision = "" if figures["precision"] is None else _percent(figures["precision"])
        table.add_row(render.clean(figures["label"]), f"{figures['photos']:,}", _percent(figures["recall"]), precision)
    _print(table, len(classes), "classes")


def _thresholds(document: JsonObject) -> None:
    table = render.table("--min-score", "right %", "95 %", "photos answered %", right=(1, 2, 3))
    for threshold in document["thresholds"][::2]:
        share = threshold["precision"]
        if share["photos"]:
            interval = f"{_percent(share['low'])} to {_percent(share['high'])}"
            table.add_row(
                f"{threshold['min_score']:g}", _percent(share["value"]), interval, _percent(threshold["coverage"])
            )
    _print(table, 0, "")
    suggested = document["suggested"]
    precision = f"{100 * suggested['precision_wanted']:g} %"
    at = suggested.get("at") or suggested["best"]
    if suggested["min_score"] is not None:
        advice = f"--min-score {at['min_score']:g} is the lowest at which {precision} of the answers are right"
    elif at["precision"]["photos"]:
        advice = (
            f"no --min-score makes {precision} of the answers right on enough photos; at best "
            f"{_percent(at['precision']['value'])} % at {at['min_score']:g}"
        )
    else:
        return
    render.out().print(f"{advice}: {_percent(at['coverage'])} % of the photos get one", soft_wrap=True)


def _print(table: Table, rows: int, what: str) -> None:
    console = render.out()
    console.print()
    console.print(table)
    if rows > ROWS:
        console.print(f"[dim]and {rows - ROWS:,} more {what}[/]")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
