"""Sorting a job's photos into folders, as ``label`` is asked for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from convnext_cli.base.errors import UsageError
from convnext_cli.jobs.actions import sort
from convnext_cli.jobs.actions.sort import By, Step
from convnext_cli.jobs.actions.undo import Mode
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.jobs.store import Store

MOST_STEPS = 1000  # of a plan that are kept; a table of more is read by nobody
_PHRASES: Mapping[Mode, str] = {"copy": "copy", "link": "link", "hardlink": "link", "move": "move"}


@dataclass(frozen=True, kw_only=True)
class SortRequest:
    """Put photos into one folder a label.

    Args:
        into: the folder of these folders.
        by: folders are named by the label, or by its WordNet id.
        mode: how photos come into the folders.
        dry_run: plan it only, and touch no photo.

    Raises:
        UsageError: a value is out of range.
    """

    into: str | Path
    by: By = "label"
    mode: Mode = "copy"
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("by", By), ("mode", Mode)):
            if getattr(self, name) not in get_args(kind):
                raise UsageError(f"{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")

    @property
    def phrase(self) -> str:
        """In words, how it changes photos or folders; "" where it does not."""
        return "" if self.dry_run else f"{_PHRASES[self.mode]} photos into folders below {Path(self.into)}"

    def check(self) -> None:
        """Raises UsageError for a folder that photos cannot be sorted into."""
        check_output(str(self.into))
        if os.path.exists(self.into) and not os.path.isdir(self.into):  # noqa: PTH110, PTH112 - surrogates
            raise UsageError(f"{self.into} is not a folder", "photos are sorted into a folder, new or old")


@dataclass(frozen=True, kw_only=True)
class SortResult:
    """What a sort did, or would do.

    Args:
        into: the folder of the labels' folders.
        mode: how photos came into the folders.
        placed: how many photos were placed, or would be.
        left: photos that stay as they are, by reason.
        failed: photos that could not be placed, by reason.
        log: what takes the sort back; None where there is nothing to take back.
        steps: of a dry run, the first thousand.
    """

    into: Path
    mode: Mode
    placed: int
    left: Mapping[str, int]
    failed: Mapping[str, int]
    log: Path | None = None
    steps: tuple[Step, ...] = ()


def sort_photos(store: Store, labels: Iterable[str], request: SortRequest) -> SortResult:
    """Sort the photos that the last walk found, or plan that.

    Args:
        store: their rows.
        labels: all labels of the model, and the groups that answers may have.
        request: where to, and how.

    Raises:
        UsageError: there is something else under the folder's name.
        OutputError: the disk is full, or the log cannot be written.
    """
    into = Path(request.into)
    plan = sort.plan(store.entries(looked_at=True), into, mode=request.mode, by=request.by, labels=labels)
    if request.dry_run:
        return _planned(plan)
    store.note(sorted=sorted({*(store.value("sorted") or []), str(into.absolute())}))
    store.commit()
    log = next(path for path in _logs(into) if not path.exists())
    folder = store.walk.common_folder()
    done = sort.apply(plan, log, request.mode, roots=[] if folder is None else [folder])
    placed = done.placed.total()
    return SortResult(
        into=into,
        mode=request.mode,
        placed=placed,
        left=dict(plan.left),
        failed=dict(done.failed),
        log=log if placed else None,
    )


def _planned(plan: sort.Plan) -> SortResult:
    steps, number = list[Step](), 0
    for number, step in enumerate(plan, 1):
        if number <= MOST_STEPS:
            steps.append(step)
    return SortResult(
        into=plan.into, mode=plan.mode, placed=number, left=dict(plan.left), failed={}, steps=tuple(steps)
    )


def _logs(into: Path) -> Iterator[Path]:
    """sorted.log, sorted-2.log, … beside the folder."""
    place = into.absolute()
    for number in count(1):
        yield place.with_name(f"{place.name}{'' if number == 1 else f'-{number}'}.log")
