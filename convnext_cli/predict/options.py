"""The options of a predictor, in the groups that verbs share: frozen values that can be sent to other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Self, TypeVar, get_args

from convnext_cli.base.errors import UsageError
from convnext_cli.certainty.conformal import COVERAGES
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.model.preprocessing_changes import PreprocessingChanges
from convnext_cli.photos.photo import PixelLevel
from convnext_cli.predict.scoring import ScoreKind
from convnext_cli.runtimes.registry import DTYPES, ENGINES

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model, and the engine that runs it.

    Args:
        model: a name, a file or a folder; None for the user's default.
        labels: a label file or the name of a bundled set, in place of the card's labels.
        engine: one of ``runtimes.registry.ENGINES``; "auto" uses the fastest that is prepared.
        device: "auto", "cpu", "cuda", "cuda:N", "cuda:all", "mps" or "xpu".
        dtype: one of ``runtimes.registry.DTYPES``; None for float32, or for what an exported file computes in.
        compiled: have torch compile the network.
        threads: processor threads for all of the work; None for all that this process may use.
        batch_size: photos in one call of the engine; None for 8 on a CPU and 64 elsewhere.

    Raises:
        UsageError: a value is out of range.
    """

    model: str | Path | None = None
    labels: str | Path | None = None
    engine: str = "auto"
    device: str = "auto"
    dtype: str | None = None
    compiled: bool = False
    threads: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        _check_count("batch_size", self.batch_size, 1)
        _check_count("threads", self.threads, 1)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How logits become ranked labels.

    Args:
        k: predictions in a row; 0 for all.
        scores: the kind of score; None for the kind that the model was trained for.
        classes: only these labels, separated by commas, as ``labels.select`` takes them.
        min_score: a photo whose best score is below it is "unknown".
        floors: thresholds for single labels, by name or id; or a file of lines ``label,score``.
        sure: the share of answers that are to be right, between 0 and 1: a row then has the answer at the level that is
            this certain, and a photo without one is "unknown". It needs a calibrated model.
        sets: the share of photos whose true label is to be in the row's set of labels: 0.8, 0.9, 0.95 or 0.99.

    Raises:
        UsageError: a value is out of range, or options exclude each other.
    """

    k: int = 5
    scores: ScoreKind | None = None
    classes: str | None = None
    min_score: float | None = None
    floors: str | Path | Mapping[str, float] = field(default_factory=dict)
    sure: float | None = None
    sets: float | None = None

    def __post_init__(self) -> None:
        _check_count("k", self.k, 0)
        if self.sure is not None and not 0 < self.sure < 1:
            raise UsageError(f"sure must be between 0 and 1, not {self.sure!r}", "for example 0.95 or 95%")
        if self.sets is not None and self.sets not in COVERAGES:
            allowed = ", ".join(f"{coverage:g}" for coverage in COVERAGES)
            raise UsageError(f"sets must be one of {allowed}, not {self.sets!r}")
        for option, used in (("min_score", self.min_score is not None), ("floors", self.floors)):
            if used and self.sure is not None:
                raise UsageError(
                    f"--sure and --{option.replace('_', '-')} exclude each other: both decide what is unknown",
                    "use one of the two",
                )
        if self.scores not in (None, *get_args(ScoreKind)):
            raise UsageError(f"scores must be one of {', '.join(get_args(ScoreKind))}, not {self.scores!r}")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the bytes of photos become pixels.

    Args:
        workers: threads that decode; None for as many as all threads.
        max_pixels: larger photos fail as ``too_large``; None for 200 million.
        pixels: how exactly photos become pixels: "exact", "close" or "fast" (``photos.photo.PixelLevel``).
        timeout: seconds for reading one photo, and of processor time for decoding it; None for an hour and two minutes.

    Raises:
        UsageError: a value is out of range.
    """

    workers: int | None = None
    max_pixels: int | None = None
    pixels: PixelLevel = "exact"
    timeout: float | None = None

    def __post_init__(self) -> None:
        _check_count("workers", self.workers, 1)
        _check_count("max_pixels", self.max_pixels, 1)
        if self.pixels not in get_args(PixelLevel):
            raise UsageError(f"pixels must be one of {', '.join(get_args(PixelLevel))}, not {self.pixels!r}")


@dataclass(frozen=True, kw_only=True)
class PredictorOptions:
    """All options that decide the row of a photo.

    Args:
        model: the model, and the engine that runs it.
        scoring: how its logits become labels.
        preprocessing: changes of the model's preprocessing, or other preprocessing.
        decoding: how photos are decoded.

    Raises:
        UsageError: more threads decode than there are.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    scoring: Scoring = field(default_factory=Scoring)
    preprocessing: PreprocessingChanges | Preprocessing = field(default_factory=PreprocessingChanges)
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        threads, workers = self.model.threads, self.decoding.workers or 0
        if threads and workers > threads:
            raise UsageError(
                f"--workers {workers} is more than --threads {threads}, and decoding cannot use more threads than that",
                "leave one of the two out",
            )

    @classmethod
    def of(cls, **options: object) -> Self:
        """Build options from the fields of all groups: ``PredictorOptions.of(model="tiny", k=3, size=96)``.

        Raises:
            UsageError: there is no such field, a value is out of range, or two of them contradict each other.
        """
        preprocessing = options.pop("preprocessing", None)
        if preprocessing is not None and not isinstance(preprocessing, Preprocessing | PreprocessingChanges):
            raise UsageError("preprocessing must be a Preprocessing or PreprocessingChanges")
        if preprocessing and (changes := options.keys() & signature(PreprocessingChanges).parameters):
            raise UsageError(
                f"preprocessing and {', '.join(sorted(changes))} exclude each other", "pass one of the two"
            )
        grouped = cls(
            model=_build(ModelOptions, options),
            scoring=_build(Scoring, options),
            decoding=_build(Decoding, options),
            preprocessing=preprocessing or _build(PreprocessingChanges, options),
        )
        if options:
            raise UsageError(f"there is no option {', '.join(sorted(options))}", "see the fields of PredictorOptions")
        return grouped


def _build(group: Callable[..., T], options: dict[str, object]) -> T:
    """Build a group from its fields, which are taken out of the options."""
    return group(**{name: options.pop(name) for name in signature(group).parameters if name in options})


def _check_count(name: str, value: object, least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise UsageError(f"{name} must be a whole number from {least}, not {value!r}")
