"""Whether int8 pays: it beside float32 on photos that did not calibrate it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from convnext_cli.base.errors import UsageError
from convnext_cli.runtimes.protocol import Engine

WORTH = 1.3  # times as fast as float32, or int8 is not worth its error
MOST_LOST = 0.5  # points of top-1 accuracy
LEAST_AGREEMENT = 97.0  # percent, where accuracy is not known; bfloat16 agrees on 99 in 100 of the default's
_FEWEST_CALLS = 15
_PROBABLE = 1.96  # standard errors: 19 in 20


@dataclass(frozen=True)
class Comparison:
    """What was measured, both engines on the same photos in turns.

    photos: how many; batch_size: photos a call. agreement: percent of photos with the same top-1. float32_ms, int8_ms:
    milliseconds a photo, the median call. float32_accuracy, int8_accuracy: top-1 percent, None without labels.
    uncertainty: of their difference, points to either side, 19 times in 20.
    """

    photos: int
    batch_size: int
    agreement: float
    float32_ms: float
    int8_ms: float
    float32_accuracy: float | None = None
    int8_accuracy: float | None = None
    uncertainty: float | None = None

    @property
    def speedup(self) -> float:
        """How many times as fast as float32 int8 is."""
        return self.float32_ms / self.int8_ms

    @property
    def lost(self) -> float | None:
        """Points of top-1 accuracy that int8 loses; negative where it gains."""
        if self.float32_accuracy is None or self.int8_accuracy is None:
            return None
        return self.float32_accuracy - self.int8_accuracy

    @property
    def warnings(self) -> list[str]:
        """Why int8 does not pay, or may not; empty when it does."""
        clauses = []
        if self.speedup < WORTH:
            pace = f"{self.speedup:.2f} times as fast as" if self.speedup >= 1 else "slower than"
            clauses.append(f"it is {pace} float32 on this machine")
        if self.lost is not None and self.lost > MOST_LOST:
            sure = self.lost - (self.uncertainty or 0) > MOST_LOST
            more = "" if sure else f", though {self.photos} photos are too few to be sure"
            clauses.append(f"it loses {self.lost:.1f} points of accuracy{more}")
        if self.lost is None and self.agreement < LEAST_AGREEMENT:
            clauses.append(f"it gives {100 - self.agreement:.1f} % of the photos another label")
        return clauses

    @property
    def pays(self) -> bool:
        return not self.warnings

    @property
    def verdict(self) -> str:
        """One sentence for people, without a full stop."""
        if self.warnings:
            return f"int8 does not pay: {', and '.join(self.warnings)}; --dtype float32 or bfloat16 serves better"
        kept = f"{self.agreement:.1f} % of {self.photos} photos keep their label"
        if self.lost is not None:
            kept += f", accuracy {self.float32_accuracy:.1f} % becomes {self.int8_accuracy:.1f} %"
        return f"int8 pays: {self.speedup:.1f} times as fast as float32, {kept}"

    def to_dict(self) -> dict[str, object]:
        """For JSON; milliseconds and percentages have three decimals."""
        verdict = {"speedup": self.speedup, "accuracy_lost": self.lost, "pays": self.pays, "verdict": self.verdict}
        return {name: round(v, 3) if isinstance(v, float) else v for name, v in (asdict(self) | verdict).items()}


def compare(
    float32: Engine, int8: Engine, photos: Iterable[np.ndarray], labels: Iterable[int] | None = None, *, batch_size: int
) -> Comparison:
    """Run both engines on the photos, call by call in turns, and say whether int8 pays.

    photos: (3, H, W) float32, none of which calibrated int8. labels: the true class of each, when known.
    Raises UsageError when there are no photos.
    """
    engines = (float32, int8)
    chosen: tuple[list[int], list[int]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])  # a photo, of each full call
    first: np.ndarray | None = None
    for batch in _batches(iter(photos), batch_size):
        if first is None:
            first = batch
            for engine in engines:  # the first call makes the kernels
                engine(batch)
        for engine, top, times in zip(engines, chosen, seconds, strict=True):
            logits, took = _timed(engine, batch)
            top.extend(logits.argmax(1).tolist())
            if len(batch) == len(first):
                times.append(took)
    if first is None:
        raise UsageError("int8 is tested on photos that did not calibrate it, and none are left", "give more photos")
    while len(seconds[0]) < _FEWEST_CALLS:
        for engine, times in zip(engines, seconds, strict=True):
            times.append(_timed(engine, first)[1])
    agreement = 100 * float(np.equal(*chosen).mean())
    speeds = [1000 * float(np.median(times)) for times in seconds]
    accuracies = {} if labels is None else _accuracies(*map(np.array, (*chosen, list(labels))))
    return Comparison(len(chosen[0]), len(first), agreement, *speeds, **accuracies)


def _batches(photos: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    while batch := list(islice(photos, size)):
        yield np.stack(batch)


def _timed(engine: Engine, batch: np.ndarray) -> tuple[np.ndarray, float]:
    """Its logits, and the seconds they took for one photo."""
    start = time.perf_counter()
    logits = engine(batch)
    return logits, (time.perf_counter() - start) / len(batch)


def _accuracies(before: np.ndarray, after: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """The last three fields of a Comparison."""
    right = [chosen == true for chosen in (before, after)]
    float32, int8 = (100 * float(r.mean()) for r in right)
    # the answers are paired: only those that became right or wrong make the difference uncertain
    changed = int((right[0] != right[1]).sum())
    uncertainty = 100 * _PROBABLE * changed**0.5 / len(true)
    return {"float32_accuracy": float32, "int8_accuracy": int8, "uncertainty": uncertainty}
