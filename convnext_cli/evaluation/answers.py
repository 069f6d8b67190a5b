"""Photos through a model: what it answers, kept as small arrays whatever the number of its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from convnext_cli.base.errors import ModelError, PhotoError
from convnext_cli.datasets import Dataset, LabelledPhoto
from convnext_cli.evaluation.figures import TOP
from convnext_cli.evaluation.sureness import CalibrationPhotos, Meter, Records
from convnext_cli.evaluation.truth import NONE
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.rows import Row


@dataclass(frozen=True)
class Answers:
    """The best guesses for N photos.

    Args:
        top: (N, TOP) int32, numbers of labels (their place in ``LabelSet.names``), the best first, NONE where there are
            no more.
        scores: (N, TOP) float64, NaN there.
        errors: why a photo has no answer, by its place.
        records: of calibrated answers and sets; None where neither was asked for.
    """

    top: np.ndarray
    scores: np.ndarray
    errors: dict[int, PhotoError] = field(default_factory=dict)
    records: Records | None = None

    def of(self, kept: np.ndarray) -> Answers:
        """Those of the photos that a mask keeps."""
        places = np.flatnonzero(kept).tolist()
        errors = {new: self.errors[old] for new, old in enumerate(places) if old in self.errors}
        return Answers(self.top[kept], self.scores[kept], errors, self.records and self.records.of(kept))


def answer(
    predictor: Predictor,
    dataset: Dataset,
    photos: Sequence[LabelledPhoto],
    keep: Callable[[LabelledPhoto, Row], None] = lambda *_: None,
    *,
    meter: Meter | None = None,
    calibrated_on: CalibrationPhotos | None = None,
) -> Answers:
    """The best guesses of every photo; a photo that cannot be read has an error in their place.

    Args:
        predictor: the model.
        dataset: has the photos.
        photos: those to answer.
        keep: called with each photo and its row, in order.
        meter: records calibrated answers; None where the model has none.
        calibrated_on: looks for photos that a calibration rests on; None to look for none.

    Raises:
        ModelError: the model's outputs are not scores of classes, or it was calibrated on these photos.
    """
    if predictor.scores == "logits":
        raise ModelError("this model predicts a quantity, not a class", "take a classifier")
    preprocessor = replace(predictor.preprocessor, content=calibrated_on is not None)
    predictor = replace(predictor, k=TOP, preprocessor=preprocessor)
    numbers = {name: number for number, name in enumerate(predictor.labels.names)}
    top = np.full((len(photos), TOP), NONE, np.int32)
    scores = np.full((len(photos), TOP), np.nan)
    errors: dict[int, PhotoError] = {}
    outputs = predictor.outputs(dataset.stream(photos), features=predictor.reads_features)
    for place, (photo, (ready, output)) in enumerate(zip(photos, outputs, strict=True)):
        if calibrated_on is not None:
            calibrated_on.look_at(ready)
        row = predictor.row(ready, output)
        if row.error is not None:
            errors[place] = row.error
        for rank, guess in enumerate(row.predictions):
            top[place, rank], scores[place, rank] = numbers[guess.label], guess.score
        if meter is not None:
            meter.keep(place, row, output)
        keep(photo, row)
    return Answers(top, scores, errors, None if meter is None else meter.records)
