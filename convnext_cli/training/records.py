"""The records that a run keeps: lines of log.jsonl, and the values of run.json."""

from __future__ import annotations

from typing import Required, TypedDict

from convnext_cli.base.environment import Environment
from convnext_cli.base.text import JsonObject


class Figures(TypedDict):
    """Answers on the photos of one split; top5 is None for five classes or fewer, ece for few photos."""

    top1: float
    top5: float | None
    loss: float
    ece: float | None


class Step(TypedDict):
    """A line of the log: the training so far. ``loss`` is the mean since the line before."""

    step: int
    epoch: float
    loss: float
    lr: float
    size: int
    images_per_second: float
    seconds: float


class Evaluation(TypedDict, total=False):
    """A line of the log: an evaluation on val. Without photos for val it has no figures, and is not logged."""

    step: Required[int]
    epoch: Required[float]
    penalty: float
    val_top1: float
    val_top5: float | None
    val_loss: float
    val_ece: float | None
    seconds: float


class Results(TypedDict, total=False):
    """The end of a run."""

    best_step: Required[int]
    best_epoch: Required[float]
    penalty: float
    val: Figures
    temperature_fitted: float | None
    val_ece_before: float | None
    val_ece_fitted: float | None
    val_loss_before: float
    val_loss_fitted: float
    val_top1_by_size: dict[str, float]
    size: int
    temperature: float | None
    test: Figures


class Parting(TypedDict):
    """How the photos were split; None for the shares that are not asked for."""

    val: float | None
    test: float | None
    skip_bad: bool


class NeededFacts(TypedDict):
    """The values without which run.json is damaged."""

    data: list[str]
    photos: dict[str, int]
    photos_sha256: str
    used_sha256: str
    parting: Parting
    asked: JsonObject
    seed: int
    dtype: str
    classes: list[str]


class RunFacts(NeededFacts, total=False):
    """The values of run.json; earlier versions did not note some of these."""

    command: str
    teacher_sha256: str | None
    architecture: str
    begun_with: str
    device: str
    processes: int
    threads: int
    environment: Environment
    results: Results
