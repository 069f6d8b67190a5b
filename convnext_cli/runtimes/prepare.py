"""The verb ``prepare``: the engines of a model, proven against the network, measured on this machine, and kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from convnext_cli import zoo
from convnext_cli.base.errors import UsageError
from convnext_cli.base.libraries import libraries_said
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.base.threads import usable_threads
from convnext_cli.model.card import Card
from convnext_cli.runtimes.protocol import BATCH_SIZE, JOBS
from convnext_cli.runtimes.registry import is_program

if TYPE_CHECKING:
    from convnext_cli.runtimes.int8.calibration import Calibration

Dtype = Literal["float32", "bfloat16", "int8"]


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """What ``prepare`` is asked for.

    Args:
        model: a name, a file or a folder of weights; None for the user's default.
        dtype: the precision to prepare.
        calibrate: for int8, a folder of photos: some find its ranges, the others test it.
        compiled: measure compiled torch too, which takes a minute.
        threads: processor threads; None for all that this process may use.

    Raises:
        UsageError: a value is out of range, or two of them contradict each other.
    """

    model: str | Path | None = None
    dtype: Dtype = "float32"
    calibrate: str | Path | None = None
    compiled: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Dtype):
            raise UsageError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {self.dtype!r}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be a whole number from 1, not {self.threads!r}")
        if (self.dtype == "int8") != (self.calibrate is not None):
            raise UsageError(
                "--dtype int8 and --calibrate FOLDER go together", "name a folder of a hundred photos or more"
            )
        if self.dtype == "int8" and self.compiled:
            raise UsageError("--compile is for torch, which does not compute in int8", "leave one of the two out")


@dataclass(frozen=True)
class PrepareResult:
    """What was prepared.

    Args:
        card: of the model.
        dtype: the precision.
        threads: processor threads that were used.
        notes: of the weights' loader.
        measured: milliseconds a photo, by job ("latency", "throughput") and engine; empty for int8.
        chosen: the engine that answers from now on, by job; empty for int8.
        differences: by engine, the largest difference from the network as a share of the logits' range.
        refused: why engines are not among them.
        seconds: that it took.
        int8: the comparison with float32; None for other precisions.
        not_kept: why the cache could not be written; "" if it was.
    """

    card: Card
    dtype: str
    threads: int
    notes: tuple[str, ...]
    measured: dict[str, dict[str, float]]
    chosen: dict[str, str]
    differences: dict[str, float]
    refused: tuple[str, ...]
    seconds: float
    int8: Calibration | None = None
    not_kept: str = ""

    @property
    def kept(self) -> bool:
        """Whether an engine was made, proven and written to the cache."""
        return not self.not_kept and (self.int8 is not None or bool(self.differences))

    def to_dict(self) -> dict[str, object]:
        """The JSON object of ``prepare --json``."""
        if self.int8 is not None:
            return {
                "model": self.card.name,
                "dtype": self.dtype,
                "threads": self.threads,
                **self.int8.comparison.to_dict(),
            }
        return {
            "model": self.card.name,
            "model_sha256": self.card.sha256,
            "dtype": self.dtype,
            "threads": self.threads,
            "difference": self.differences,
            "ms_per_photo": self.measured,
            "chosen": self.chosen,
            "seconds": round(self.seconds, 3),
            "refused": list(self.refused),
        }


@libraries_said()
def prepare(request: PrepareRequest, listener: Listener = SILENT) -> PrepareResult:
    """Make the engines of a model, prove and measure them, and keep the fastest in the cache folder.

    Args:
        request: the model and the precision.
        listener: hears what is being prepared.

    Raises:
        UsageError: the model is a file for one runtime already, or the folder has too few photos.
        ModelError: the weights cannot be used.
        UnavailableError: a library is missing.
    """
    path = zoo.resolve(request.model)
    if is_program(path):
        raise UsageError(
            f"{path.name} is made for its own runtime already: there is nothing to prepare",
            f"use it as it is: convnext classify -m {path.name} PHOTO",
        )
    threads = request.threads or usable_threads()
    listener.stage(f"preparing {path.name}")
    if request.calibrate is not None:
        return _prepare_int8(path, str(request.calibrate), threads)
    from convnext_cli.runtimes import build

    prepared = build.build_engines(path, dtype=request.dtype, threads=threads, compiled=request.compiled)
    for engine in prepared.engines.values():
        engine.close()
    return PrepareResult(
        card=prepared.card,
        dtype=request.dtype,
        threads=threads,
        notes=tuple(prepared.notes),
        measured=prepared.choice.measured,
        chosen={job: prepared.choice.best(job) for job in JOBS},
        differences=prepared.proof,
        refused=tuple(prepared.refused),
        seconds=prepared.seconds,
        not_kept=prepared.kept or "",
    )


def _prepare_int8(path: Path, folder: str, threads: int) -> PrepareResult:
    from convnext_cli import checkpoints
    from convnext_cli.runtimes.int8.calibration import calibrate

    start, card = time.perf_counter(), checkpoints.read_card(path)
    calibration = calibrate(path, card, folder, threads=threads, batch_size=BATCH_SIZE)
    seconds = time.perf_counter() - start
    return PrepareResult(
        *(card, "int8", threads, (), {}, {}, {}, (), seconds), int8=calibration, not_kept=calibration.kept or ""
    )
