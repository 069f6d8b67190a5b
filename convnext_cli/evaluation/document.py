"""All figures of an evaluation as one JSON document; what people are shown is read from it too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np

from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import JsonObject
from convnext_cli.datasets import Dataset, LabelledPhoto, problems
from convnext_cli.evaluation import figures
from convnext_cli.evaluation.answers import Answers
from convnext_cli.evaluation.sureness import Sureness
from convnext_cli.evaluation.truth import NONE, Chosen, Truth
from convnext_cli.labels import LabelSet
from convnext_cli.predict.predictor import Predictor

Values: TypeAlias = JsonObject  # a part of the document of ``evaluate --json``


@dataclass(frozen=True)
class Judged:
    """A model's answers beside the right ones."""

    truth: Truth
    answers: Answers

    def of(self, kept: np.ndarray) -> Judged:
        """The photos that a mask keeps."""
        truth = self.truth
        several = truth.several and [labels for labels, is_kept in zip(truth.several, kept, strict=True) if is_kept]
        return Judged(Truth(truth.labels, truth.answers[kept], several, truth.names), self.answers.of(kept))

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: the best guess is right."""
        return self.truth.right(self.answers.top[:, :1])

    @property
    def answered(self) -> np.ndarray:
        """(N,) bool: the photo has an answer."""
        return np.asarray(self.answers.top[:, 0] != NONE)

    def reliability(self) -> list[figures.Bin]:
        """The photos with an answer, by its score."""
        return figures.reliability(self.answers.scores[self.answered, 0], self.right[self.answered])


def model(predictor: Predictor) -> Values:
    """Which model this is, and how it was run."""
    engine, preprocessing = predictor.engine, predictor.preprocessor.preprocessing
    return {
        "model": predictor.model,
        "model_sha256": engine.card.sha256,
        "labels": {"name": predictor.labels.name, "count": len(predictor.labels.names)},
        "engine": engine.name,
        "device": engine.device,
        "dtype": engine.dtype,
        "scores": predictor.scores,
        "temperature": predictor.temperature,
        "recipe": preprocessing.to_dict() | {"description": preprocessing.describe()},
    }


def build(
    dataset: Dataset,
    split: str | None,
    chosen: Chosen,
    photos: Sequence[LabelledPhoto],
    predictors: Sequence[Predictor],
    judged: Sequence[Judged],
    sureness: Sequence[Sureness | None],
    *,
    precision: float,
) -> Values:
    """The document, of one model or of two and their difference. photos: those of ``chosen`` that count."""
    described = [
        model(predictor) | describe(photos, model_judged, precision=precision) | _promises(model_sureness)
        for predictor, model_judged, model_sureness in zip(predictors, judged, sureness, strict=True)
    ]
    values = {"data": _data(dataset, split, chosen, photos)} | described[0]
    if len(judged) > 1:
        values |= {"against": described[1], "difference": compare(*judged)}
    return values


def _promises(sureness: Sureness | None) -> Values:
    """The figures of calibrated answers and sets; nothing where they were not asked for."""
    if sureness is None:
        return {}
    values: Values = {}
    if (answers := sureness.answers) is not None:
        foreign = answers.foreign
        values["sure"] = {
            "asked": answers.sure,
            "threshold": answers.threshold,
            "photos": answers.photos,
            "precision": _share(answers.precision),
            "class": _share(answers.of_class),
            "broader": _share(answers.of_broader),
            "not_sure": answers.not_sure,
            "out_of_scope": answers.strange,
            "failed": answers.failed,
            "depth": answers.depth,
            "curve": [asdict(step) for step in answers.curve],
            "foreign": foreign
            and {
                "photos": foreign.photos,
                "let_through": _share(foreign.let_through),
                "answered": _share(foreign.answered),
                "auroc": _number(foreign.auroc),
                "failed": [
                    {"path": path, "error": {"kind": error.kind, "message": error.message}}
                    for path, error in foreign.failures
                ],
            },
        }
    if (sets := sureness.sets) is not None:
        values["sets"] = {"asked": sets.asked, "coverage": _share(sets.coverage), "size": sets.size}
    return values


def without_failures(
    judged: Sequence[Judged], photos: Sequence[LabelledPhoto]
) -> tuple[list[Judged], tuple[LabelledPhoto, ...]]:
    """Only the photos that every model could answer. Raises ModelError when there are none."""
    failed = {place for model_judged in judged for place in model_judged.answers.errors}
    kept = np.array([place not in failed for place in range(len(photos))], bool)
    if not kept.any():
        raise ModelError("none of the photos can be read", "look at what is wrong with them: leave --skip-bad out")
    return [model_judged.of(kept) for model_judged in judged], tuple(
        p for p, is_kept in zip(photos, kept, strict=True) if is_kept
    )


def describe(photos: Sequence[LabelledPhoto], judged: Judged, *, precision: float) -> Values:
    """The figures of one model. precision: that the suggested --min-score is to have."""
    truth, answers, right = judged.truth, judged.answers, judged.right
    answered, bins = judged.answered, judged.reliability()
    scores = answers.scores[answered, 0]
    reached, best = figures.suggested(scores, right[answered], len(photos), precision)
    return {
        "photos": len(photos),
        "top1": _share(figures.Share.of(int(right.sum()), len(photos))),
        "top5": _top5(truth, int(truth.right(answers.top).sum()), len(photos)),
        "real": _real(truth, answers),
        "calibration": {"ece": figures.known_calibration_error(bins), "bins": [asdict(entry) for entry in bins]},
        "thresholds": [_threshold(threshold) for threshold in figures.thresholds(scores, right[answered], len(photos))],
        "suggested": {
            "precision_wanted": precision,
            "min_score": None if reached is None else reached.min_score,
            **({"at": _threshold(reached)} if reached is not None else {"best": _threshold(best)}),
        },
        "classes": _classes(truth, answers),
        "pairs": _pairs(truth, answers),
        "wrong": _wrong(photos, judged),
        "failed": [
            {
                "path": photos[place].path,
                "class": photos[place].label,
                "error": {"kind": error.kind, "message": error.message},
            }
            for place, error in answers.errors.items()
        ],
    }


def title(document: Values) -> str:
    """Which model was evaluated, and on what."""
    data = document["data"]
    split = f", split {data['split']}" if data["split"] else ""
    other = f" against {document['against']['model']}" if "against" in document else ""
    return f"{document['model']}{other} on {data['path']}{split}"


def compare(first: Judged, second: Judged) -> Values:
    """The paired difference of two models."""
    difference = figures.difference(first.right, second.right)
    return {
        "top1": _number(difference.value),
        "low": difference.low,
        "high": difference.high,
        "both_right": difference.both,
        "first_alone_right": difference.first,
        "second_alone_right": difference.second,
        "neither_right": difference.photos - difference.both - difference.first - difference.second,
        "p": difference.p,
        "test": "McNemar, mid-p",
        "interval": "Bonett and Price 2012, 95 %",
    }


def order_of_mistakes(judged: Judged) -> list[int]:
    """The places of photos with a wrong answer, the surest first."""
    places = np.flatnonzero(judged.answered & ~judged.right)
    return places[np.argsort(-judged.answers.scores[places, 0], kind="stable")].tolist()  # type: ignore[no-any-return]


def true_label(judged: Judged, place: int) -> str | None:
    """The name of the true label of a photo; several of ReaL with commas between; None when the model has none."""
    truth, labels = judged.truth, judged.truth.labels
    if truth.classes:
        return labels.names[int(truth.answers[place])]
    known = sorted(label for label in (truth.several or [])[place] if label >= 0)
    return ", ".join(labels.names[label] for label in known) or None


def identity(labels: LabelSet, answer: int) -> str | None:
    """The WordNet id of a label, where it is one."""
    if labels.groups is None:
        return labels.ids[answer]
    rows = labels.groups[answer]
    own_id = None if labels.group_ids is None else labels.group_ids[answer]
    return own_id or (labels.ids[rows[0]] if len(rows) == 1 else None)


def _data(dataset: Dataset, split: str | None, chosen: Chosen, photos: Sequence[LabelledPhoto]) -> Values:
    """The data: its form, its classes, and the photos that were left out."""
    unread = len(chosen.photos) - len(photos)
    return {
        "path": dataset.path,
        "form": dataset.form,
        "split": split,
        "classes": len({photo.label for photo in photos if photo.label is not None}),
        "left_out": chosen.left_out | ({"that cannot be read": unread} if unread else {}),
        "unmatched": list(chosen.unmatched),
        "problems": [asdict(problem) for problem in problems.by_name(dataset)],
    }


def _share(share: figures.Share) -> Values:
    return {"value": _number(share.value), **asdict(share)}


def _top5(truth: Truth, right: int, photos: int) -> Values | None:
    """None where the model has so few labels that every photo would count as right."""
    return _share(figures.Share.of(right, photos)) if figures.means_top5(len(truth.labels.names)) else None


def _threshold(threshold: figures.Threshold) -> Values:
    return {"min_score": threshold.min_score, "precision": _share(threshold.precision), "coverage": threshold.coverage}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _real(truth: Truth, answers: Answers) -> Values | None:
    if truth.several is None:
        return None
    kept = truth.has_real()
    photos = int(kept.sum())
    top1, top5 = (int(truth.right_by_real(top)[kept].sum()) for top in (answers.top[:, :1], answers.top))
    return {"photos": photos, "top1": _share(figures.Share.of(top1, photos)), "top5": _top5(truth, top5, photos)}


def _classes(truth: Truth, answers: Answers) -> list[Values]:
    if not truth.classes:
        return []
    return [
        {
            "label": truth.labels.names[label.answer],
            "id": identity(truth.labels, label.answer),
            "classes": list(truth.names[label.answer]),
            "photos": label.photos,
            "right": label.right,
            "answered": label.answered,
            "recall": label.recall,
            "precision": label.precision,
        }
        for label in figures.classes(truth.answers, answers.top[:, 0])
    ]


def _pairs(truth: Truth, answers: Answers) -> list[Values]:
    """What was taken for what, the most frequent first; photos without an answer do not count."""
    if not truth.classes:
        return []
    names = truth.labels.names
    return [
        {"true": names[true], "answer": names[answer], "photos": count}
        for (true, answer), count in figures.confusions(truth.answers, answers.top[:, 0]).items()
        if answer not in (true, NONE)
    ]


def _wrong(photos: Sequence[LabelledPhoto], judged: Judged) -> list[Values]:
    names, answers = judged.truth.labels.names, judged.answers
    mistakes = []
    for place in order_of_mistakes(judged):
        top, scores = answers.top[place].tolist(), answers.scores[place].tolist()
        rank = top.index(judged.truth.answers[place]) if judged.truth.answers[place] in top else None
        known = judged.truth.classes and judged.truth.answers[place] != NONE
        mistakes.append(
            {
                "path": photos[place].path,
                "class": photos[place].label,
                "true": true_label(judged, place),
                "answer": names[top[0]],
                "score": scores[0],
                "true_rank": rank + 1 if known and rank is not None else None,
                "true_score": scores[rank] if known and rank is not None else None,
                # the true label is not among the best guesses, so it has no higher score than the last of these
                "true_score_at_most": scores[-1] if known and rank is None else None,
            }
        )
    return mistakes
