"""How ``label`` reports while it works, asks, and answers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import UsageError
from convnext_cli.base.listener import Listener
from convnext_cli.zoo import demonstration

if TYPE_CHECKING:
    from convnext_cli.certainty.answer import Level
    from convnext_cli.jobs.actions.request import SortResult
    from convnext_cli.jobs.cluster.run import Progress
    from convnext_cli.jobs.job import Tally
    from convnext_cli.jobs.keywords.xmp import Written
    from convnext_cli.predict.options import PredictorOptions
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.rows import Row


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """What an output holds after a run, and what the run did.

    Args:
        output: the file; of a cluster, the folder or URL.
        statuses: photos by status, "vanished" among them.
        labels: photos with the status ok by their answer or else their best label, the most frequent first; empty for
            a cluster.
        levels: photos by the level of their answer: "class", "broader" or "none"; empty without answers, and for a
            cluster.
        failures: failed photos by kind, the most frequent first.
        first_failures: path, kind and message of the first failed photos; empty for a cluster.
        passed_over: files that were left alone, by type.
        photos: how many the run found.
        done: of them, those that it labelled.
        seconds: that it took; of a cluster, without ``starting``.
        starting: seconds that a cluster took to begin.
        parts: files that a cluster's output is made of; 0 elsewhere.
        limits: the stage that limited the rate, and the shares of all; "" where nothing was labelled.
        close_would_save: the share of the time that ``--pixels close`` would have saved, where photos took most of it;
            0 where it would not.
        temperature: the logits were divided by it.
        unfinished: photos whose keywords could not be written, or that could not be sorted.
    """

    output: str
    statuses: Mapping[str, int]
    labels: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[Level, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    first_failures: tuple[tuple[str, str, str], ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    photos: int = 0
    done: int = 0
    seconds: float = 0.0
    starting: float = 0.0
    parts: int = 0
    limits: str = ""
    close_would_save: float = 0.0
    temperature: float = 1.0
    unfinished: int = 0

    @property
    def rows(self) -> int:
        """How many rows the output has."""
        return sum(self.statuses.values())

    @property
    def is_complete(self) -> bool:
        """Whether nothing failed."""
        return not self.statuses.get("failed") and not self.unfinished


class LabelListener(Listener):
    """Hears how a job gets on, and answers its questions. By itself it says nothing, and refuses what needs a yes."""

    def output_chosen(self, output: Path) -> None:
        """No output was named: labels go into this one."""

    def opening(self, options: PredictorOptions) -> None:
        """The model is going to be opened; everything else was checked. May raise ConvNextError."""

    def opened(self, predictor: Predictor, remarks: list[str]) -> None:
        """The model is open, and nothing was labelled yet. May raise ConvNextError.

        Args:
            predictor: that was opened.
            remarks: that the user should see.
        """
        for remark in remarks:
            self.note(remark)

    def allow(self, actions: str) -> None:
        """The bundled model, a demonstration, would change photos or folders: go on, or raise UsageError.

        Args:
            actions: what it would do, in words.
        """
        raise UsageError(
            f"the bundled model, a small demonstration, would {actions}",
            f"add --yes to let it, or use a stronger model: {demonstration.stronger()}",
        )

    def keeps(self, differences: str) -> bool:
        """Some rows of the output have other settings: whether they stay. May raise UsageError instead.

        Args:
            differences: between these settings and the present ones, in words.
        """
        raise UsageError(
            f"photos in this output were labelled with other settings: {differences}",
            "--relabel labels them again, --mix keeps them; or choose another name for the output",
        )

    def guard(self, notes: Path, timeout: float | None) -> AbstractContextManager[None]:
        """What is entered while photos are worked on, so that a crash of the process can be reported.

        Args:
            notes: the file that says which photos these are (``jobs/in_flight.py``).
            timeout: seconds that one photo may take, as for ``Preprocessor``.
        """
        return nullcontext()

    def looking(self, photos: int) -> None:
        """Photos are looked for; so many were seen."""
        if not photos:
            self.stage("looking for photos")

    def labelling(self, tally: Tally) -> None:
        """Labelling begins; the tally is counted while it goes."""
        self.stage("labelling", tally.todo)

    def labelled(self, row: Row) -> None:
        """A photo has its row."""
        self.advance()

    def interrupted(self, tally: Tally, output: Path | None) -> None:
        """Ctrl-C ended a round; the same request goes on from there.

        Args:
            tally: how far it came.
            output: an older output that stays as it was until all are labelled; None where there is none.
        """

    def round_ended(self, result: LabelResult) -> None:
        """The output is written. Under ``watch`` this comes after each batch of changes."""

    def keywords_written(self, written: Written) -> None:
        """Keywords were written or taken out."""

    def report_written(self, page: Path) -> None:
        """The report was written."""

    def photos_sorted(self, result: SortResult) -> None:
        """Photos were sorted into folders."""

    def sort_planned(self, result: SortResult) -> None:
        """A dry run planned a sort; nothing was touched."""

    def watching(self, folders: list[str]) -> None:
        """Waiting begins for what arrives in these folders."""

    def stopped_watching(self) -> None:
        """Ctrl-C ended the waiting."""

    def connected(self, dashboard: str | None) -> None:
        """A cluster was reached.

        Args:
            dashboard: where it shows how it is; None where it does not.
        """

    def cluster_progress(self, progress: Progress) -> None:
        """How far a cluster has come; the first call means that it begins."""

    def cluster_interrupted(self) -> None:
        """Ctrl-C ended a cluster's job; the same request goes on with what is missing."""


SILENT = LabelListener()
