"""``Calibration``: what a model knows about its own limits, fitted on validation photos."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np

from convnext_cli import __version__
from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import JsonObject, counted, json_value
from convnext_cli.certainty import out_of_scope
from convnext_cli.certainty.conformal import COVERAGES, KINDS, Kind, Quantiles
from convnext_cli.certainty.decider import Decider
from convnext_cli.certainty.out_of_scope import BEST, BEST_OF_LOGITS, METHODS, Method, Scope
from convnext_cli.certainty.probabilities import softmax
from convnext_cli.certainty.roll_up import RollUp
from convnext_cli.certainty.tree import Tree
from convnext_cli.labels import LabelSet

SCHEMA_VERSION = 1
ENOUGH_PHOTOS, ENOUGH_OF_A_CLASS = 200, 5  # fewer say little
_AGAIN = "calibrate the model again: convnext calibrate"
_SCOPE = "scope."  # before the names of the arrays of the score


@dataclass(frozen=True)
class MadeFor:
    """Fingerprints of the model that a calibration was made for; it says nothing about others.

    Args:
        weights: of the tensors.
        labels: of the label set.
        preprocessing: of the preprocessing.
    """

    weights: str
    labels: str
    preprocessing: str

    def differences(self, other: MadeFor) -> tuple[str, ...]:
        """The names of the parts that differ: "weights", "labels", "preprocessing"."""
        return tuple(part.name for part in fields(self) if getattr(self, part.name) != getattr(other, part.name))


@dataclass(frozen=True, eq=False)
class Calibration:
    """The limits of one model, complete.

    Args:
        temperature: logits are divided by it.
        roll_up: how often answers were right, at each threshold.
        scope: which photos are unlike those that were trained on.
        quantiles: of the sets.
        rows: the classifier's rows.
        photos: validation photos that all of this rests on.
        fewest: validation photos of the class that has the fewest.
        made_for: the model.
        keys: uint64, ascending: the content keys of the validation photos, which do not test this calibration.
        made_with: the version of this program.

    Raises:
        ValueError: the parts contradict each other.
    """

    temperature: float
    roll_up: RollUp
    scope: Scope
    quantiles: Quantiles
    rows: int
    photos: int
    fewest: int
    made_for: MadeFor
    keys: np.ndarray
    made_with: str = __version__

    def __post_init__(self) -> None:
        if not 1e-3 <= self.temperature <= 1e3:
            raise ValueError("the temperature is not from 0.001 to 1000")
        if self.rows < 1 or self.photos < 1 or not 0 <= self.fewest <= self.photos:
            raise ValueError("the numbers of rows and photos contradict each other")
        if int(self.roll_up.answered[0]) > self.photos or self.quantiles.photos != self.photos:
            raise ValueError("the counts are of more photos than there were")
        if self.keys.dtype != np.uint64 or self.keys.ndim != 1 or (self.keys[1:] <= self.keys[:-1]).any():
            raise ValueError("the keys of the photos are damaged")

    @property
    def doubts(self) -> str:
        """Why the intervals say little: too few photos, in words; "" where there are enough."""
        if self.photos < ENOUGH_PHOTOS:
            return f"the calibration rests on {counted(self.photos, 'photo')}, fewer than {ENOUGH_PHOTOS}"
        if self.fewest < ENOUGH_OF_A_CLASS:
            return (
                f"the calibration rests on {counted(self.fewest, 'photo')} of one of the classes, "
                f"fewer than {ENOUGH_OF_A_CLASS}"
            )
        return ""

    @property
    def channels(self) -> int | None:
        """How many pooled features of a photo are read; None where logits are enough."""
        return self.scope.scorer.channels

    def seen(self, keys: np.ndarray) -> int:
        """How many of these photos, by their content keys, the calibration rests on."""
        return int(np.isin(keys.astype(np.uint64), self.keys).sum())

    def decider(
        self, labels: LabelSet, *, sure: float | None = None, sets: float | None = None, kind: Kind = "lac"
    ) -> Decider:
        """Prepare answers.

        Args:
            labels: the names of the rows.
            sure: the precision of the answers; None for no answers.
            sets: the coverage of sets, one of ``conformal.COVERAGES``; None for no sets.
            kind: of the sets.

        Raises:
            UsageError: the calibration cannot promise that much; the message says how much it can.
            ModelError: the labels have another number of rows.
        """
        if len(labels) != self.rows:
            raise ModelError(f"the calibration is of {self.rows} classes, and the model has {len(labels)}", _AGAIN)
        return Decider(
            Tree.of(labels),
            self.temperature,
            self.scope,
            threshold=None if sure is None else self.roll_up.threshold(sure),
            quantile=None if sets is None else self.quantiles.quantile(sets, kind),
            coverage=sets,
            kind=kind,
            calibration=self.fingerprint(),
        )

    def fingerprint(self) -> str:
        """A short digest of all of it: answers of calibrations that differ are different promises."""
        digest = hashlib.sha256(self.to_json().encode())
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]

    def to_json(self) -> str:
        """All but the arrays."""
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "made_with": self.made_with,
                "made_for": asdict(self.made_for),
                "temperature": self.temperature,
                "rows": self.rows,
                "photos": self.photos,
                "fewest": self.fewest,
                "scope": {"method": self.scope.scorer.method, "limit": self.scope.limit},
                "sets": {
                    kind: {f"{coverage:g}": value for coverage, value in values.items()}
                    for kind, values in self.quantiles.values.items()
                },
            }
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name: float16, float32, float64, uint32 and uint64."""
        return {
            "keys": self.keys,
            "thresholds": self.roll_up.thresholds,
            "answered": self.roll_up.answered.astype(np.uint32),
            "right": self.roll_up.right.astype(np.uint32),
            **{_SCOPE + name: array for name, array in self.scope.scorer.arrays.items()},
        }

    @classmethod
    def from_json(cls, text: str, arrays: Mapping[str, np.ndarray]) -> Calibration:
        """The inverse of ``to_json`` and ``arrays``.

        Raises:
            ModelError: the calibration is damaged, or of a newer schema.
        """
        try:
            values = json_value(text)
            if values["schema_version"] > SCHEMA_VERSION:
                raise ModelError(
                    "the calibration was made by a newer version of this program",
                    "pip install --upgrade convnext-cli",
                )
            return cls(
                temperature=_number(values, "temperature"),
                roll_up=RollUp(
                    _table(arrays, "thresholds", np.float64),
                    _table(arrays, "answered", np.uint32).astype(np.int64),
                    _table(arrays, "right", np.uint32).astype(np.int64),
                ),
                scope=out_of_scope.from_arrays(
                    _one_of(values["scope"]["method"], METHODS),
                    _number(values["scope"], "limit"),
                    {name.removeprefix(_SCOPE): arrays[name] for name in arrays if name.startswith(_SCOPE)},
                ),
                quantiles=Quantiles(_count(values, "photos"), _quantiles(values["sets"])),
                rows=_count(values, "rows"),
                photos=_count(values, "photos"),
                fewest=_count(values, "fewest"),
                made_for=MadeFor(**{part.name: _text(values["made_for"], part.name) for part in fields(MadeFor)}),
                keys=_table(arrays, "keys", np.uint64),
                made_with=_text(values, "made_with"),
            )
        except KeyError as error:
            raise ModelError(f"the calibration is damaged: it lacks {error}", _AGAIN) from error
        except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            raise ModelError(f"the calibration is damaged: {error}", _AGAIN) from error


def fit_calibration(
    logits: np.ndarray,
    features: np.ndarray | None,
    truth: np.ndarray,
    labels: LabelSet,
    *,
    temperature: float,
    made_for: MadeFor,
    keys: np.ndarray,
    method: Method | None = None,
) -> Calibration:
    """Fit all limits on validation photos, which the network was not trained on.

    Args:
        logits: (N, rows), before the temperature.
        features: (N, channels), the pooled features that the classifier reads; None where an engine has none.
        truth: (N,) the true row of each photo.
        labels: the names of the rows.
        temperature: that logits are divided by.
        made_for: fingerprints of the model.
        keys: uint64 (N,) the content keys of the photos.
        method: the score of scope; None for the best one that needs no more than there is.

    Raises:
        ModelError: there is no photo, or the arrays do not fit each other or the labels.
    """
    truth = np.asarray(truth, np.int64)
    if not len(truth):
        raise ModelError("there is no photo to calibrate with", "name photos whose classes are known")
    if logits.shape != (len(truth), len(labels)) or (features is not None and len(features) != len(truth)):
        raise ModelError(
            f"{len(truth)} photos have logits of the shape {logits.shape}, and the model has {len(labels)} classes",
            _AGAIN,
        )
    if truth.min() < 0 or truth.max() >= len(labels):
        raise ModelError("a photo has a class that the model does not have", "leave such photos out")
    probabilities = softmax(logits, temperature)
    scope, in_scope = Scope.fit(method or (BEST_OF_LOGITS if features is None else BEST), logits, features, truth)
    return Calibration(
        temperature=temperature,
        roll_up=RollUp.fit(Tree.of(labels), probabilities, truth, in_scope),
        scope=scope,
        quantiles=Quantiles.fit(probabilities, truth),
        rows=len(labels),
        photos=len(truth),
        fewest=int(np.bincount(truth, minlength=len(labels)).min()),
        made_for=made_for,
        keys=np.unique(np.asarray(keys, np.uint64)),
    )


def _number(values: JsonObject, name: str) -> float:
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is not a number")
    return float(value)


def _count(values: JsonObject, name: str) -> int:
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise ValueError(f"{name} is not a count")
    return value


def _text(values: JsonObject, name: str) -> str:
    if not isinstance(values[name], str):
        raise ValueError(f"{name} is not text")
    return str(values[name])


def _one_of(value: object, choices: tuple[Method, ...]) -> Method:
    for choice in choices:
        if choice == value:
            return choice
    raise ValueError(f"no score of scope is called {value!r}")


def _quantiles(values: JsonObject) -> dict[Kind, dict[float, float]]:
    known = {f"{coverage:g}": coverage for coverage in COVERAGES}
    return {kind: {known[name]: _number(values[kind], name) for name in values[kind]} for kind in KINDS}


def _table(arrays: Mapping[str, np.ndarray], name: str, dtype: type[np.generic]) -> np.ndarray:
    array = arrays[name]
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"the array {name} has the wrong type")
    return array
