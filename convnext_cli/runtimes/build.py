"""Building engines: make an engine of some weights, prove it against ``model/network.py``, measure it, and keep it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from convnext_cli import checkpoints
from convnext_cli.base.errors import UnavailableError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card
from convnext_cli.runtimes import cache
from convnext_cli.runtimes.protocol import Engine
from convnext_cli.runtimes.reference import TOLERANCE, difference, reference_input
from convnext_cli.runtimes.torch.engine import TorchEngine

_LONGEST = 1.0  # seconds for one measured call
_TURNS = 5
_SECONDS, _BRIEF_SECONDS = 2.0, 0.5  # for all turns of one engine
_HOPELESS = 2.0  # times as slow as the fastest after a turn; a disturbance of one engine alone is rarely as large


Save = Callable[[Path], None]


@dataclass(frozen=True)
class BuiltEngines:
    """What ``build_engines`` made.

    engines: by name, open; the caller closes them. proof: by engine, the largest difference from network.py as a share
    of the logits' range. choice: what was measured. refused: why engines are not among them. kept: why the cache
    could not be written, if so.
    """

    card: Card
    notes: list[str]
    engines: dict[str, Engine]
    choice: cache.Choice
    proof: dict[str, float]
    refused: list[str]
    seconds: float
    kept: str | None = None


def build_engines(
    path: Path,
    *,
    dtype: str = "float32",
    threads: int = 1,
    batch_size: int = 8,
    compiled: bool = False,
    keep: str | None = None,
    checkpoint: Checkpoint | None = None,
    brief: bool = False,
    stage: Callable[[str], None] = lambda _: None,
) -> BuiltEngines:
    """Build, prove and measure the engines that can run these weights on the CPU, and keep the fastest for each job.

    An engine that is not installed, or does not give network.py's answers, is left out; torch always stays.

    Args:
        path: the weights.
        dtype: the precision.
        threads: processor threads.
        batch_size: of the batches that are measured for many photos.
        compiled: measure torch.compile too, which takes a minute.
        keep: an engine to keep even if another is faster.
        checkpoint: the weights, if they were read already.
        brief: somebody waits for the first label, so measure briefly, and leave torch out where a runtime can be used:
            on processors it is several times as slow (benchmarks/engines.py).
        stage: called with the name of each part of the work, as it begins.

    Raises:
        ModelError: the weights cannot be used.
    """
    start = time.perf_counter()
    if checkpoint is None:
        stage("reading the weights")
        checkpoint = checkpoints.load(path)
    card = checkpoint.card
    makers = _makers(checkpoint, dtype, threads, batch_size)
    plain = TorchEngine(path, device="cpu", threads=threads, checkpoint=checkpoint)
    engines: dict[str, Engine] = {"torch": plain}
    if dtype != "float32":
        engines["torch"] = TorchEngine(path, device="cpu", dtype=dtype, threads=threads, checkpoint=checkpoint)
    if compiled:
        engines["torch --compile"] = TorchEngine(
            path, device="cpu", dtype=dtype, threads=threads, compiled=True, checkpoint=checkpoint
        )
    proof, refused, saves, kept = dict[str, float](), list[str](), dict[str, Save](), None
    x = reference_input(*card.preprocessing.size)
    reference = plain(x)
    for name, make in makers.items():
        stage(f"building it for {name}, and checking its answers")
        try:
            engine, save = make()
        except UnavailableError as error:
            refused.append(error.message)
            continue
        proof[name] = difference(engine(x), reference)
        if proof[name] > TOLERANCE[dtype]:
            refused.append(f"{name} differs from the network by {proof[name]:.1e} of the range of its scores")
            continue
        engines[name], saves[name] = engine, save
    stage("measuring")
    rivals = {name: engine for name, engine in engines.items() if not (brief and saves and name.startswith("torch"))}
    seconds = _BRIEF_SECONDS if brief else _SECONDS
    choice = cache.Choice(measure(rivals, card.preprocessing.size, batch_size, seconds=seconds))
    stage("saving")
    try:
        for name in saves.keys() & {keep, choice.best("latency"), choice.best("throughput")}:
            with cache.making(card, name, dtype, proof[name]) as folder:
                saves[name](folder)
        cache.remember_choice(card, dtype, choice)
        cache.remember(path, card, checkpoint.notes)
    except OSError as error:
        kept = f"{cache.root()} cannot be written ({error.strerror or error})"
    return BuiltEngines(card, checkpoint.notes, engines, choice, proof, refused, time.perf_counter() - start, kept)


def measure(
    engines: dict[str, Engine], size: tuple[int, int], batch_size: int, *, seconds: float = _SECONDS
) -> dict[str, dict[str, float]]:
    """Measure engines in interleaved turns, and leave out those that cannot win any more.

    For "latency", single photos, torch is not measured: importing it takes longer than a photo does.

    Args:
        engines: by name, open.
        size: (height, width) of a photo in pixels.
        batch_size: photos that come at once for "throughput".
        seconds: for the turns of one engine, about.

    Returns:
        Milliseconds a photo, by job and engine: the quickest call, since disturbances only add to it. Of one engine
        alone, a single photo is measured.
    """
    milliseconds: dict[str, dict[str, float]] = {}
    for job, photos in (("latency", 1), ("throughput", batch_size)):
        rivals = {n: e for n, e in engines.items() if job == "throughput" or not n.startswith("torch")}
        batch = reference_input(*size, photos)
        times: dict[str, list[float]] = {name: [] for name in rivals}
        for engine in rivals.values():
            engine(batch[:1])
        single = {name: _seconds(engine, batch[:1]) for name, engine in rivals.items()}
        if len(rivals) < 2:  # nothing to choose from
            milliseconds[job] = {name: 1000 * seconds_of for name, seconds_of in single.items()}
            continue
        batch = batch[: max(1, min(photos, int(_LONGEST / max(single.values()))))]
        end = time.perf_counter() + seconds * len(rivals)
        for _ in range(_TURNS):
            for name, engine in rivals.items():
                engine(batch)  # the threads of the engine before this one spin on for a while
                times[name] += [_seconds(engine, batch) / len(batch) for _ in range(2)]
            limit = _HOPELESS * min(min(times[name]) for name in rivals)
            rivals = {name: engine for name, engine in rivals.items() if min(times[name]) < limit}
            if len(rivals) < 2 or time.perf_counter() > end:
                break
        milliseconds[job] = {name: 1000 * min(seconds_of) for name, seconds_of in times.items()}
    return milliseconds


def _seconds(engine: Engine, batch: np.ndarray) -> float:
    start = time.perf_counter()
    engine(batch)
    return time.perf_counter() - start


def _makers(
    checkpoint: Checkpoint, dtype: str, threads: int, batch_size: int
) -> dict[str, Callable[[], tuple[Engine, Save]]]:
    """By engine, what opens it and can write it into a folder."""
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    card = checkpoint.card
    makers: dict[str, Callable[[], tuple[Engine, Save]]] = {}

    def with_openvino() -> tuple[Engine, Save]:
        from convnext_cli.runtimes.openvino import engine as openvino

        model = openvino.graph(card.config, arrays)
        engine = openvino.OpenVINOEngine(model, card, dtype=dtype, threads=threads, batch_size=batch_size)
        return engine, lambda folder: openvino.save(model, folder / openvino.FILE)

    def with_onnxruntime() -> tuple[Engine, Save]:
        from convnext_cli.runtimes.onnx import graph
        from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine

        model = graph.graph(card.config, arrays, card)
        engine = OnnxRuntimeEngine(model.SerializeToString(), card, device="cpu", threads=threads, dtype=dtype)
        return engine, lambda folder: graph.save(model, folder / graph.FILE)

    if find_spec("openvino"):
        makers["openvino"] = with_openvino
    fits = 4 * card.config.num_parameters < 2**31 - 2**20  # bytes of one protobuf message
    if dtype == "float32" and fits and find_spec("onnxruntime") and find_spec("onnx"):
        makers["onnxruntime"] = with_onnxruntime
    return makers
