"""What a person sees of an evaluation: read from its document."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from convnext_cli.cli import render

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Values = dict[str, Any]
ROWS = 10  # of a table: pairs, classes


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


def print_document(document: Values, *, as_json: bool) -> None:
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
    _pairs(document)
    _classes(document)
    _thresholds(document)


def _accuracy(document: Values) -> None:
    models = [document, *([document["against"]] if "against" in document else [])]
    named = ("model",) if len(models) > 1 else ()
    first = 1 + len(named)
    table = render.table("", *named, "%", "95 %", "photos", right=(first, first + 1, first + 2))

    def rows(what: str, cells: list[tuple[str, ...] | None]) -> None:
        heading = what
        for each, more in zip(models, cells, strict=True):
            if more is not None:
                name = (render.clean(each["model"]),) if named else ()
                table.add_row(heading, *name, *more)
                heading = ""

    rows("top-1", [_share(each["top1"]) for each in models])
    rows("top-5", [each["top5"] and _share(each["top5"]) for each in models])
    rows("ReaL top-1", [each["real"] and _share(each["real"]["top1"]) for each in models])
    rows("ReaL top-5", [each["real"] and each["real"]["top5"] and _share(each["real"]["top5"]) for each in models])
    errors = [each["calibration"]["ece"] for each in models]
    rows("ECE", [None if error is None else (f"{error:.3f}",) for error in errors])
    render.out().print(table)


def _share(share: Values) -> tuple[str, str, str] | None:
    if share["value"] is None:  # of no photos
        return None
    interval = f"{_percent(share['low'])} to {_percent(share['high'])}"
    return _percent(share["value"]), interval, f"{share['right']:,} of {share['photos']:,}"


def _difference(document: Values) -> None:
    found = document["difference"]
    if found["top1"] is None:
        return
    apart = "apart" if found["low"] > 0 or found["high"] < 0 else "not to be told apart"
    render.out().print(
        f"\ndifference in top-1: {100 * found['top1']:+.2f} points, {100 * found['low']:+.2f} to "
        f"{100 * found['high']:+.2f}: {apart}; right by one alone {found['first_alone_right']:,} and "
        f"{found['second_alone_right']:,}, McNemar's mid-p {found['p']:.2g}",
        soft_wrap=True,
    )


def _pairs(document: Values) -> None:
    pairs = document["pairs"]
    if not pairs:
        return
    photos = {each["label"]: each["photos"] for each in document["classes"]}
    table = render.table("most confused", "taken for", "photos", "of", right=(2, 3))
    for pair in pairs[:ROWS]:
        cells = render.clean(pair["true"]), render.clean(pair["answer"])
        table.add_row(*cells, f"{pair['photos']:,}", f"{photos[pair['true']]:,}")
    _print(table, len(pairs), "pairs")


def _classes(document: Values) -> None:
    classes = sorted(document["classes"], key=lambda each: each["recall"])
    if not classes:
        return
    table = render.table("worst classes", "photos", "recall %", "precision %", right=(1, 2, 3))
    for each in classes[:ROWS]:
        precision = "" if each["precision"] is None else _percent(each["precision"])
        table.add_row(render.clean(each["label"]), f"{each['photos']:,}", _percent(each["recall"]), precision)
    _print(table, len(classes), "classes")


def _thresholds(document: Values) -> None:
    table = render.table("--min-score", "right %", "95 %", "photos answered %", right=(1, 2, 3))
    for each in document["thresholds"][::2]:
        share = each["precision"]
        if share["photos"]:
            interval = f"{_percent(share['low'])} to {_percent(share['high'])}"
            table.add_row(f"{each['min_score']:g}", _percent(share["value"]), interval, _percent(each["coverage"]))
    _print(table, 0, "")
    found = document["suggested"]
    wanted = f"{100 * found['precision_wanted']:g} %"
    at = found.get("at") or found["best"]
    if found["min_score"] is not None:
        told = f"--min-score {at['min_score']:g} is the lowest at which {wanted} of the answers are right"
    elif at["precision"]["photos"]:
        told = (
            f"no --min-score makes {wanted} of the answers right on enough photos; at best "
            f"{_percent(at['precision']['value'])} % at {at['min_score']:g}"
        )
    else:
        return
    render.out().print(f"{told}: {_percent(at['coverage'])} % of the photos get one", soft_wrap=True)


def _print(table: Any, rows: int, what: str) -> None:
    console = render.out()
    console.print()
    console.print(table)
    if rows > ROWS:
        console.print(f"[dim]and {rows - ROWS:,} more {what}[/]")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
