"""``Decider``: from the logits and features of one photo to its answer and its set."""

from __future__ import annotations

import numpy as np

from convnext_cli.certainty import conformal
from convnext_cli.certainty.answer import NOT_SURE, OUT_OF_SCOPE, Answer, Decision, Level, PredictionSet
from convnext_cli.certainty.conformal import Kind
from convnext_cli.certainty.out_of_scope import Scope
from convnext_cli.certainty.probabilities import by_label, shortest, softmax
from convnext_cli.certainty.roll_up import Threshold, climb, summed
from convnext_cli.certainty.tree import Tree


class Decider:
    """Decides photos one by one; everything that is the same for all of them is computed beforehand.

    Args:
        tree: of the labels.
        temperature: logits are divided by it.
        scope: photos outside it are not answered.
        threshold: of the answers; None for no answers.
        quantile: of the sets; None for no sets.
        coverage: the one that the quantile stands for.
        kind: of the sets.
        calibration: the fingerprint of the calibration that all of this is from.
    """

    def __init__(
        self,
        tree: Tree,
        temperature: float,
        scope: Scope,
        *,
        threshold: Threshold | None,
        quantile: float | None,
        coverage: float | None,
        kind: Kind,
        calibration: str,
    ) -> None:
        self.threshold = threshold
        self.temperature = temperature
        self.coverage = coverage
        self.calibration = calibration
        self._tree, self._scope = tree, scope
        self._quantile, self._kind = quantile, kind
        groups = tree.labels.groups
        self._label_of_row = None
        if groups is not None:
            self._label_of_row = {row: label for label, rows in enumerate(groups) for row in rows}

    @property
    def answers(self) -> bool:
        """Whether decisions have an answer."""
        return self.threshold is not None

    @property
    def sets(self) -> bool:
        """Whether decisions have a set."""
        return self._quantile is not None

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the broader groups that answers may have."""
        return tuple(dict.fromkeys(node.name for chain in self._tree.chains for node in chain[1:]))

    @property
    def reads_features(self) -> bool:
        """Whether pooled features are needed."""
        return self.answers and self._scope.scorer.channels is not None

    def __call__(self, logits: np.ndarray, features: np.ndarray | None = None) -> Decision:
        """Decide one photo.

        Args:
            logits: (rows,), before the temperature.
            features: (channels,); None where the calibration reads none.
        """
        probabilities = softmax(logits, self.temperature)
        answer = prediction_set = None
        if self.threshold is not None:
            answer = self._answer(logits, features, probabilities, self.threshold.value)
        if self._quantile is not None and self.coverage is not None:
            rows = conformal.members(probabilities, self._quantile, self._kind)
            prediction_set = PredictionSet(self._names(rows), self.coverage)
        return Decision(answer, prediction_set)

    def _answer(
        self, logits: np.ndarray, features: np.ndarray | None, probabilities: np.ndarray, threshold: float
    ) -> Answer:
        best = int(by_label(probabilities, self._tree.labels.groups).argmax())
        chain = self._tree.chains[best]
        if not self._scope.contains(logits[None], None if features is None else features[None])[0]:
            return Answer(None, None, shortest(summed(chain[0], probabilities)), "none", OUT_OF_SCOPE)
        place, total = climb(chain, probabilities, threshold)
        if place < 0:
            return Answer(None, None, shortest(summed(chain[0], probabilities)), "none", NOT_SURE)
        node = chain[place]
        level: Level = "broader" if place else "class"
        return Answer(node.name, node.id, shortest(total), level, above=self._tree.above[best][place])

    def _names(self, rows: np.ndarray) -> tuple[str, ...]:
        names = self._tree.labels.names
        if self._label_of_row is None:
            return tuple(names[row] for row in rows.tolist())
        labels = (self._label_of_row.get(row) for row in rows.tolist())
        return tuple(dict.fromkeys(names[label] for label in labels if label is not None))
