"""EvaluateRequest: what the verb ``evaluate`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from convnext_cli.base.errors import UsageError
from convnext_cli.evaluation.labelled_data import Split
from convnext_cli.predict.options import PredictorOptions, Scoring


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """What ``evaluate`` is asked for.

    Args:
        data: photos whose classes are known: a folder, a zip, a table, parquet files, tar shards, or URLs of these.
        predictor: the model, and how it answers.
        against: a second model for the same photos; the result then has the difference.
        split: which photos; None for test, or else val, or else all.
        real: a file of ReaL labels, ``real.json``, of ImageNet's validation photos.
        by_index: the data's classes are numbers of the model's labels, whatever these are called.
        only_these: only labels that are classes of the data may be answers.
        skip_unmatched: leave out photos of classes that a model does not have.
        skip_bad: leave out photos that cannot be read; otherwise they count as wrong.
        precision: the share of right answers that the suggested threshold is to reach, between 0 and 1.
        fail_below: the top-1 accuracy in percent below which the result falls short.
        output: the folder for tables, plots, predictions and the page of mistakes; None for none.
        overwrite: replace that folder.
        mistakes: photos on the page of mistakes; None for 100.
        foreign: photos that are of none of the model's classes: paths, folders, archives or URLs, to see how many
            ``sure`` answers.
        offline: refuse data that a connection is needed for.

    Raises:
        UsageError: a value is out of range, or an option has no effect.
    """

    data: tuple[str | Path, ...]
    predictor: PredictorOptions = field(default_factory=PredictorOptions)
    against: str | Path | None = None
    split: Split | None = None
    real: str | Path | None = None
    by_index: bool = False
    only_these: bool = False
    skip_unmatched: bool = False
    skip_bad: bool = False
    precision: float = 0.95
    fail_below: float | None = None
    output: str | Path | None = None
    overwrite: bool = False
    mistakes: int | None = None
    foreign: tuple[str | Path, ...] = ()
    offline: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.data, str | Path) or not self.data:
            raise UsageError(f"data must be a tuple of paths, not {self.data!r}", 'such as data=("photos/",)')
        if self.split not in (None, *get_args(Split)):
            raise UsageError(f"split must be one of {', '.join(get_args(Split))}, not {self.split!r}")
        if not 0 < self.precision < 1:
            raise UsageError(f"precision must be between 0 and 1, not {self.precision!r}")
        if self.fail_below is not None and not 0 <= self.fail_below <= 100:
            raise UsageError(f"fail_below must be a percentage from 0 to 100, not {self.fail_below!r}")
        if self.mistakes is not None and self.mistakes < 0:
            raise UsageError(f"mistakes must be a number of photos, not {self.mistakes!r}")
        if self.output == "":
            raise UsageError("the name of the output folder is empty", "name a folder with -o")
        for name, value in (("mistakes", self.mistakes), ("overwrite", self.overwrite or None)):
            if value is not None and self.output is None:
                raise UsageError(f"--{name} is for -o FOLDER", "name a folder with -o, or leave it out")
        self._check_scoring(self.predictor.scoring)
        self._check_promises(self.predictor.scoring)

    def _check_promises(self, scoring: Scoring) -> None:
        if isinstance(self.foreign, str | Path):
            raise UsageError(f"foreign must be a tuple of paths, not {self.foreign!r}", 'such as foreign=("others/",)')
        if self.foreign and scoring.sure is None:
            raise UsageError(
                "--foreign is for --sure, which decides what is foreign", "add --sure 0.95, or leave it out"
            )
        if "-" in map(str, self.foreign):
            raise UsageError("--foreign cannot be standard input", "name a file or a folder")
        if scoring.sure is None and scoring.sets is None:
            return
        option = "--sets" if scoring.sure is None else "--sure"
        others = {"--only-these": self.only_these, "--classes": scoring.classes, "--real": self.real}
        for name, used in others.items():
            if used:
                raise UsageError(
                    f"{option} and {name} exclude each other: a calibration is of all labels, and of one a photo",
                    "use one of the two",
                )

    @staticmethod
    def _check_scoring(scoring: Scoring) -> None:
        unused = {"k": scoring.k != Scoring().k, "min_score": scoring.min_score is not None, "floors": scoring.floors}
        for name, typed in unused.items():
            if typed:
                raise UsageError(f"{name} has no effect on an evaluation, which looks at all answers", "leave it out")
        if scoring.scores == "logits":
            raise UsageError("an evaluation needs scores, and logits are not", "leave scores out")

    @property
    def predictors(self) -> tuple[PredictorOptions, ...]:
        """The options of the one model or of both."""
        first = self.predictor
        if self.against is None:
            return (first,)
        return first, replace(first, model=replace(first.model, model=self.against))
