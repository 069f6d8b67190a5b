"""What a runtime provides: an engine for weights, and a writer, a reader and a card reader for each kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from convnext_cli.model.card import Card
from convnext_cli.runtimes.fixed_shapes import Fixed

if TYPE_CHECKING:
    import numpy as np

    from convnext_cli.checkpoints.checkpoint import Checkpoint
    from convnext_cli.runtimes.exporting.plan import Plan

Job = Literal["latency", "throughput"]
JOBS: tuple[Job, ...] = ("latency", "throughput")
BATCH_SIZE = 8  # photos in a call on a CPU


class Engine(Protocol):
    """A network ready to run.

    name: "torch" …; device: as the runtime names it; dtype: what it computes in; card: what the model says of
    itself; photos: whether it takes photos as they are, and preprocesses them itself; fixed: what the file has decided
    about inputs and outputs; has_features: whether it gives pooled features; notes: what was inferred while loading, to
    be said aloud.
    """

    name: str
    device: str
    dtype: str
    card: Card
    photos: bool
    fixed: Fixed
    has_features: bool
    notes: list[str]

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32; where it takes photos, uint8 (N, H, W, 3) of any one size."""
        ...

    def with_features(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same logits, and from the same pass the pooled features that the classifier reads, (N, C) float32.

        Only where ``has_features`` is true.
        """
        ...

    def close(self) -> None: ...


class Runtime(Protocol):
    """A program of another runtime, open.

    name: of the runtime; device: as it names it; notes: what a user should know of how it runs here.
    """

    name: str
    device: str
    notes: list[str]

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """The outputs, float32, in the file's order: logits or scores (N, classes), then the features where it has
        them. x: exactly of the shape and dtype that the file takes. May return what the next call overwrites.

        Raises MemoryError when memory does not hold the batch.
        """
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """A module that opens the files of a format."""

    def open_file(self, path: Path, *, device: str, threads: int) -> tuple[Runtime, Card | None]:
        """Open a file, and read its card.

        Args:
            path: of the file.
            device: "auto", or as for ``select.open_engine``.
            threads: processor threads that the runtime may use.

        Raises:
            ModelError: the file is damaged, or not of this format.
            UnavailableError: the runtime does not run on this device or machine.
        """
        ...


class CardReader(Protocol):
    """A module that finds the card in the files of a format without running anything of them."""

    def read_card(self, path: Path) -> str | None:
        """The card as JSON; None when the file has none. Raises ModelError for a damaged file.

        Other exceptions mean damage too: ``inspection.inspect`` says so in words.
        """
        ...


class Writer(Protocol):
    """What a module of a format has."""

    def refuse(self, card: Card, plan: Plan) -> None:
        """Raise UnavailableError when a library or program is not there, UsageError for what the format cannot do, with
        the reason. Nothing heavy is imported or done."""
        ...

    def write(self, checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
        """Write the file at ``path``, and what belongs beside it into the same folder, which is empty.

        checkpoint: float32. card: to be kept in the file: its preprocessing has the size of the plan, its ``export`` is
        that of the plan, its temperature is None where the scores have it in them (then the one of checkpoint.card
        counts). Raises UsageError or ModelError when it turns out that it cannot be done.
        """
        ...
