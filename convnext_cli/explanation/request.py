"""ExplainRequest: what the verb ``explain`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.photos.selection import PhotoSelection
from convnext_cli.predict.options import ModelOptions, PredictorOptions, Scoring

GUESSES = 3


@dataclass(frozen=True, kw_only=True)
class ExplainRequest:
    """The request of ``explain``.

    Args:
        photos: a selection; or paths of photos, and the bytes of files.
        predictor: the model, and how it answers. ``k`` is the number of guesses that are explained, at least 1. The
            network always runs in torch, in float32, one photo at a time.
        output: the folder for the pictures, which is created if it is missing; None for none.
        overwrite: whether pictures of the same name may be replaced.

    Raises:
        UsageError: a value is out of range, or an option has no effect.
    """

    photos: PhotoSelection | tuple[str | Path | bytes, ...]
    predictor: PredictorOptions = field(default_factory=lambda: PredictorOptions.of(k=GUESSES))
    output: str | Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.photos, str | Path | bytes):
            raise UsageError(f"photos must be a tuple, not {self.photos!r}", 'such as photos=("photo.jpg",)')
        if self.output == "":
            raise UsageError("the name of the output folder is empty", "name a folder with -o")
        if self.overwrite and self.output is None:
            raise UsageError("--overwrite is for -o FOLDER", "name a folder with -o, or leave it out")
        self._check_model(self.predictor.model)
        self._check_scoring(self.predictor.scoring)

    @staticmethod
    def _check_model(model: ModelOptions) -> None:
        if model.engine not in ("auto", "torch") or model.compiled:
            raise UsageError("a network is explained in torch, without a compiler", "leave engine and compiled out")
        if model.dtype not in (None, "float32"):
            raise UsageError(f"a network is explained in float32, not in {model.dtype}", "leave dtype out")
        if model.device == "cuda:all":
            raise UsageError("a network is explained on one device", "name one, such as cuda:0")
        if model.batch_size is not None:
            raise UsageError("photos are explained one at a time", "leave batch_size out")

    @staticmethod
    def _check_scoring(scoring: Scoring) -> None:
        if scoring.k < 1:
            raise UsageError("k must be the number of guesses to explain, at least 1", "for example 3")
        for name in ("min_score", "floors", "sure", "sets"):
            if getattr(scoring, name):
                raise UsageError(f"{name} has no effect: the best guesses are explained, however sure", "leave it out")
