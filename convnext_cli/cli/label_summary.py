"""What a person reads at the end of ``label``: labels, failures, counts and rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from convnext_cli.base.text import counted, duration
from convnext_cli.cli import render
from convnext_cli.cli.counts import passed_over

if TYPE_CHECKING:
    from convnext_cli.certainty.answer import Level
    from convnext_cli.jobs.actions.undo import Undone
    from convnext_cli.jobs.listener import LabelResult

WORTH_SAYING = 0.1  # of the time, which another option would save
MOST_LABELS = 20
LEVELS: Mapping[Level, str] = {"class": "a label", "broader": "a broader group", "none": "unknown"}
MOST_KEPT = 1000  # files that --undo left, which are named


def words(counts: Iterable[tuple[str, int]]) -> str:
    """Numbers with their names: 3 ok, 1 failed."""
    return ", ".join(f"{number:,} {name}" for name, number in counts)


def print_summary(result: LabelResult) -> None:
    """Labels, failures, skipped files, the rate and the stage that limited it, and the path of the output."""
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
    if result.levels:
        render.note(f"answers: {words((name, result.levels.get(level, 0)) for level, name in LEVELS.items())}")
    _print_failures(result)
    if result.passed_over:
        render.note(passed_over(result.passed_over))
    statuses = [f"{number:,} {status}" for status, number in sorted(result.statuses.items())]
    render.note(f"{result.output}: {', '.join([counted(result.rows, 'row'), *statuses])}")
    if not result.done:
        render.note(f"nothing new among {counted(result.photos, 'photo')}, in {duration(result.seconds)}")
        return
    temperature = f"; scores by temperature {result.temperature:g}" if result.temperature != 1.0 else ""
    render.note(
        f"{counted(result.done, 'photo')} processed in {duration(result.seconds)}, "
        f"{result.done / max(result.seconds, 1e-9):.1f}/s; {result.limits}{temperature}"
    )
    if result.close_would_save >= WORTH_SAYING:
        render.note(f"--pixels close would have taken about {100 * result.close_would_save:.0f} % less time")


def print_cluster_summary(result: LabelResult) -> None:
    """Failures, skipped files, the rate, and the path of the output."""
    _print_failures(result)
    if result.passed_over:
        render.note(passed_over(result.passed_over))
    counts = [counted(result.rows, "row"), *(f"{number:,} {status}" for status, number in result.statuses.items())]
    render.note(f"{result.output}: {', '.join(counts)}, in {counted(result.parts, 'part')}")
    took = f"in {duration(result.seconds)} after {duration(result.starting)} to start"
    if not result.done:
        render.note(f"nothing new, {took}")
        return
    rate = result.done / max(result.seconds, 1e-9)
    render.note(f"{counted(result.done, 'photo')} labelled {took}, {rate:.1f}/s")


def print_undone(undone: Undone, log: str) -> None:
    """The files that ``--undo`` moved or removed, and those that it left."""
    for kept in undone.kept[:MOST_KEPT]:
        render.note(f"left as it is: {kept.path}: {kept.why}")
    if not (undone.removed or undone.moved_back or undone.folders or undone.kept):
        render.note(f"nothing to undo: {log} was undone before")
        return
    render.note(
        f"undone: {undone.removed:,} copies and links removed, {counted(undone.moved_back, 'photo')} moved back, "
        f"{counted(undone.folders, 'folder')} removed"
        + (f"; {len(undone.kept):,} left as they are" if undone.kept else "")
    )


def _print_failures(result: LabelResult) -> None:
    """How many photos failed, the first of them by name, and where all of them are."""
    if not result.failures:
        return
    render.note(f"failed: {words(result.failures.items())}    (--retry-failed tries them again)")
    if not result.first_failures:
        return
    for path, kind, message in result.first_failures:
        render.note(f"  {path}: {kind}: {message}")
    if (more := sum(result.failures.values()) - len(result.first_failures)) > 0:
        render.note(f"  and {more:,} more: see the rows of {result.output} with status failed")
