"""All that ``label`` may be asked for, as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.jobs.actions.request import SortRequest
from convnext_cli.jobs.keywords.request import KeywordsRequest
from convnext_cli.photos.selection import PhotoSelection
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.writers import JOB_FORMATS

_ONE_OF_TWO = "leave one of them out"


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """A Ray cluster that labels.

    Args:
        address: "auto", or ``ray://HOST:PORT``.
        pull: have nodes fetch the model where they lack it.
    """

    address: str = "auto"
    pull: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelRequest:
    """What ``label`` is asked for. The same request again does only what is missing.

    Args:
        photos: which photos.
        predictor: the model, and how it answers.
        output: the result; of a cluster a folder, here or behind a URL; None for FOLDER-labels.csv here.
        format: one of ``writers.JOB_FORMATS``; None for what the name of the output says.
        overwrite: label everything again; an older output stays until the new one is complete.
        rewrite: write an output that was changed again from its job; without photos, do nothing else.
        relabel: label rows again that other settings made.
        mix: keep rows that other settings made.
        retry_failed: try photos again that failed before.
        strict: stop at the first failure.
        watch: afterwards, label what arrives in the folders, until Ctrl-C.
        nice: added to the niceness of this process, from 0 to 19, so that other programs go first.
        sort: sort the photos into folders.
        keywords: write the labels as keywords.
        report: write a page with thumbnails to this file.
        explain: add maps of what speaks for each label to that page.
        yes: let the bundled model, a demonstration, sort photos and write keywords.
        cluster: the cluster that does it.

    Raises:
        UsageError: options contradict each other, or one of them cannot take effect.
    """

    photos: PhotoSelection = field(default_factory=PhotoSelection)
    predictor: PredictorOptions = field(default_factory=PredictorOptions)
    output: str | Path | None = None
    format: str | None = None
    overwrite: bool = False
    rewrite: bool = False
    relabel: bool = False
    mix: bool = False
    retry_failed: bool = False
    strict: bool = False
    watch: bool = False
    nice: int | None = None
    sort: SortRequest | None = None
    keywords: KeywordsRequest | None = None
    report: str | Path | None = None
    explain: bool = False
    yes: bool = False
    cluster: ClusterOptions | None = None

    def __post_init__(self) -> None:
        if self.format not in (None, *JOB_FORMATS):
            raise UsageError(f"format must be one of {', '.join(JOB_FORMATS)}, not {self.format!r}")
        self._check_conflicts()
        if not self.photos:
            self._check_without_photos()
        if "-" in self.photos.paths:
            raise UsageError(
                "standard input holds one photo, and a durable job is for files", "label it with: convnext classify -"
            )
        if self.sort is not None and self.sort.dry_run and self.keywords is not None:
            raise UsageError("--dry-run touches no photo, and --xmp would write keywords", _ONE_OF_TWO)
        if self.yes:
            self._check_yes()

    @property
    def only_rewrites(self) -> bool:
        """Whether nothing is asked for but to write the output again."""
        return self.rewrite and not self.photos

    @property
    def actions(self) -> str:
        """In words, how it would change photos or folders; "" where it does not."""
        requests = [request for request in (self.sort, self.keywords) if request is not None]
        return " and ".join(request.phrase for request in requests if request.phrase)

    def _check_conflicts(self) -> None:
        if self.rewrite and self.overwrite:
            raise UsageError("--rewrite and --overwrite exclude each other", _ONE_OF_TWO)
        if self.overwrite and self.mix:
            raise UsageError("--overwrite labels everything again, and --mix keeps earlier rows", _ONE_OF_TWO)
        if self.explain and self.report is None:
            raise UsageError("--explain is for --report", "write a page with --report, or leave --explain out")
        if self.overwrite and self.relabel:
            raise UsageError("--overwrite labels everything again", "leave --relabel out")
        if self.relabel and self.mix:
            raise UsageError("--relabel and --mix exclude each other", _ONE_OF_TWO)

    def _check_without_photos(self) -> None:
        if not self.rewrite:
            raise UsageError("no photos are named", "name at least one folder, or --files-from FILE")
        others = [
            entry.name
            for entry in fields(self)
            if entry.name not in ("photos", "output", "format", "rewrite")
            and getattr(self, entry.name) != (PredictorOptions() if entry.name == "predictor" else entry.default)
        ]
        if others:
            raise UsageError(
                f"without photos, rewrite does nothing else: {' and '.join(others)} cannot take effect",
                "leave it out, or name the folder",
            )

    def _check_yes(self) -> None:
        if self.sort is None and self.keywords is None:
            raise UsageError("--yes is for --sort-into and --xmp", "leave --yes out")
        if self.sort is not None and self.sort.dry_run:
            raise UsageError("--dry-run touches no photo, and asks nothing", "leave --yes out")
        if self.sort is None and not self.actions:
            raise UsageError("--xmp-remove asks nothing", "leave --yes out")
