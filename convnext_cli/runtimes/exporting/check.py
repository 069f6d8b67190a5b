"""The check of an exported file: in its own runtime, against ``model/network.py``, before it takes its name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.base.errors import PhotoError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card, Export
from convnext_cli.photos.decode import decode, read_file
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.reference import TOLERANCE, difference

BATCHES = (1, 2, 7)
LEAST_AGREEMENT = 97.0  # percent of photos that must keep their label in int8, as ``convnext prepare`` has it
_MOST = 2000  # photos of a folder
_AT_ONCE = 8
_TURNS, _SECONDS = 9, 2.0  # of the measured calls, and for all of one kind

Outputs = list[np.ndarray]


class Opened(Protocol):
    """An exported file, open: ``runtimes.exported.ExportedEngine`` and the ONNX Runtime engine."""

    name: str
    card: Card

    def outputs(self, batch: np.ndarray) -> Outputs: ...


@dataclass(frozen=True)
class Trial:
    """One comparison. what: "random" or "photos". photos: how many at once, or in all. size: (height, width) of what
    went in, None for photos. difference: the largest of an output, as a share of the range of the network's; of scores,
    as it is. absolute: the largest as it is."""

    what: str
    photos: int
    size: tuple[int, int] | None
    difference: float
    absolute: float


@dataclass
class Check:
    """What was found. trials: each comparison. agreement: percent of photos with the same best label; photos: how many,
    skipped: not readable. bytes, ms: of the network's weights and the file, by batch size for ms a photo.
    against: why the file is not to be used; empty when it is good.
    """

    tolerance: float | None
    trials: list[Trial] = field(default_factory=list)
    photos: int = 0
    skipped: int = 0
    agreement: float = 100.0
    bytes: tuple[int, int] = (0, 0)
    ms: dict[int, tuple[float, float]] = field(default_factory=dict)
    against: list[str] = field(default_factory=list)

    @property
    def difference(self) -> float:
        """The largest of all trials."""
        return max(trial.difference for trial in self.trials)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"difference": self.difference, "ok": not self.against}


class Network:
    """``model/network.py`` in float32 on the CPU, as the check wants it: what went into a file gives what it has to
    give.

    card: of the file.
    """

    def __init__(self, checkpoint: Checkpoint, card: Card) -> None:
        self._network = checkpoints.build(checkpoint)
        self._temperature = checkpoint.card.temperature or 1.0
        self.card = card

    @torch.inference_mode()
    def outputs(self, tensors: np.ndarray) -> Outputs:
        """Of (N, 3, H, W): logits or scores, then the features, as the card's export says."""
        *_, last = self._network.hidden_states(torch.from_numpy(tensors))
        pooled = self._network.pool(last)
        logits = self._network.classify(pooled)
        export = self.card.export
        assert export is not None
        if export.output == "scores":
            multi = self.card.problem == "multi_label"
            logits = logits.sigmoid() if multi else (logits / self._temperature).softmax(1)
        return [logits.numpy()] + ([pooled.numpy()] if export.features else [])

    def answer(self, x: np.ndarray) -> Outputs:
        """The same of what the file takes."""
        assert self.card.export is not None
        if self.card.export.photos:
            x = np.stack([apply_preprocessing(self.card.preprocessing, Image.fromarray(photo)) for photo in x])
        return self.outputs(x)


def check(
    checkpoint: Checkpoint,
    engine: Opened,
    files: Iterable[Path],
    photos: Iterable[str],
    *,
    dtype: str,
    threads: int,
) -> Check:
    """Run an exported file beside the network and compare.

    checkpoint: float32. files: what was written. photos: paths; unreadable ones are skipped. threads: of the
    network; the file was opened with its own.
    Raises ModelError when the file does not run.
    """
    torch.set_num_threads(threads)
    network = Network(checkpoint, engine.card)
    export = engine.card.export
    assert export is not None
    result = Check(TOLERANCE.get(dtype))
    for size, batch in product(sizes(engine.card), BATCHES):
        x = random_input(export, batch, size)
        result.trials.append(_trial(export, batch, size, engine.outputs(x), network.answer(x)))
    _on_photos(result, engine, network, photos)
    weights = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    result.bytes = (weights, sum(file.stat().st_size for file in files))
    for batch in (1, _AT_ONCE) if export.batch is None else (export.batch,):
        x = random_input(export, batch, sizes(engine.card)[0])
        result.ms[batch] = _speeds(partial(network.answer, x), partial(engine.outputs, x), batch)
    _judge(result, dtype)
    return result


def sizes(card: Card) -> list[tuple[int, int]]:
    """The sizes of random inputs: what the file takes, and where it takes any, a second that is not square."""
    export = card.export
    assert export is not None
    if export.photos:
        return [(480, 640), (333, 251)]
    height, width = export.size or card.preprocessing.size
    stride = card.config.stride
    return [(height, width)] if export.size else [(height, width), (height + stride, width + 3 * stride)]


def random_input(export: Export, batch: int, size: tuple[int, int]) -> np.ndarray:
    """Noise as the file takes it: of the mean and deviation of prepared photos, or bytes."""
    rng = np.random.default_rng(batch)
    if export.photos:
        # smooth, since noise alone is all averaged away when it is resized
        coarse = rng.integers(0, 256, (batch, 12, 16, 3), np.uint8)
        return np.stack([np.asarray(Image.fromarray(noise).resize(size[::-1])) for noise in coarse])
    return rng.standard_normal((batch, 3, *size), np.float32)


def _trial(export: Export, photos: int, size: tuple[int, int] | None, outputs: Outputs, expected: Outputs) -> Trial:
    """A trial of random inputs, or of photos where there is no size."""
    off = [float(np.abs(a - b).max()) for a, b in zip(outputs, expected, strict=True)]
    worst = [difference(a, b) for a, b in zip(outputs, expected, strict=True)]
    if export.output == "scores" and np.isfinite(off[0]):
        worst[0] = off[0]  # of the range that scores can have: where all are small, their own says little
    return Trial("random" if size else "photos", photos, size, max(worst), max(off))


def _on_photos(result: Check, engine: Opened, network: Network, paths: Iterable[str]) -> None:
    """Add the trial of photos and the agreement."""
    same, worst, absolute = 0, 0.0, 0.0
    assert engine.card.export is not None
    for x in _batches(result, engine.card, paths):
        outputs, expected = engine.outputs(x), network.answer(x)
        trial = _trial(engine.card.export, len(x), None, outputs, expected)
        worst, absolute = max(worst, trial.difference), max(absolute, trial.absolute)
        same += int((outputs[0].argmax(1) == expected[0].argmax(1)).sum())
        result.photos += len(x)
    if result.photos:
        result.agreement = 100 * same / result.photos
        result.trials.append(Trial("photos", result.photos, None, worst, absolute))


def _batches(result: Check, card: Card, paths: Iterable[str]) -> Iterator[np.ndarray]:
    """Photos as the file takes them; one at a time where nothing brings them to one size."""
    assert card.export is not None
    waiting: list[np.ndarray] = []
    for path in islice(paths, _MOST):
        try:
            photo = decode(read_file(path))
        except PhotoError:
            result.skipped += 1
            continue
        if card.export.photos:
            yield np.asarray(photo.image)[None]
            continue
        waiting.append(apply_preprocessing(card.preprocessing, photo))
        if len(waiting) == _AT_ONCE:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def _speeds(network: Callable[[], object], file: Callable[[], object], batch: int) -> tuple[float, float]:
    """Milliseconds a photo of both, the quickest of interleaved calls, since what disturbs only adds."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + 2 * _SECONDS
    for _ in range(_TURNS):
        for call, its in zip((network, file), times, strict=True):
            call()  # the threads of the runtime before this one spin on for a while
            start = time.perf_counter()
            call()
            its.append(1000 * (time.perf_counter() - start) / batch)
        if time.perf_counter() > end:
            break
    return min(times[0]), min(times[1])


def _judge(result: Check, dtype: str) -> None:
    """Say in ``against`` what speaks against the file."""
    if not np.isfinite(result.difference):
        result.against.append(f"it gives values that are not finite: they do not fit into {dtype}")
    elif result.tolerance is not None and result.difference > result.tolerance:
        result.against.append(
            f"it differs from the network by {result.difference:.1e} of the range of its scores, and {dtype} may by "
            f"{result.tolerance:.0e}"
        )
    if dtype == "int8" and result.agreement < LEAST_AGREEMENT:
        result.against.append(
            f"{percent(result.agreement)} % of {result.photos} photos keep their label, and int8 must keep "
            f"{LEAST_AGREEMENT:.0f} %"
        )


def percent(agreement: float) -> str:
    """With a digit behind the point, or as many as tell it from all, and from what is asked of int8."""
    for digits in range(1, 6):
        shown = f"{agreement:.{digits}f}"
        if all((agreement < bound) == (float(shown) < bound) for bound in (LEAST_AGREEMENT, 100.0)):
            break
    return shown
