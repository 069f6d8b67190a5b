"""The exceptions of the project. Each has the exit status that the command ends with, and a hint.

The command line prints ``error: <message>`` and ``hint: <hint>``; Python callers catch ``ConvNextError``.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from convnext_cli.base.text import well_formed

FailureKind = Literal[
    "missing",
    "permission",
    "not_a_file",
    "empty",
    "not_an_image",
    "unsupported",
    "truncated",
    "corrupt",
    "too_large",
    "timeout",
    "out_of_memory",
    "not_finite",
    "crashed",
]
FAILURE_KINDS: tuple[str, ...] = get_args(FailureKind)


class ConvNextError(Exception):
    """The base of all errors that a user can cause or fix; ``hint`` says what to do."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ConvNextError):
    """An impossible combination of options, or none of the named paths exists (exit 2)."""

    exit_status = 2


class ModelError(ConvNextError):
    """The model, labels or data cannot be used: unreadable, wrong shapes, refused pickle (exit 3)."""

    exit_status = 3


class TooSlowError(ModelError):
    """The network takes too long for some of the photos of a batch; a photo for which it does so alone fails."""


class UnavailableError(ConvNextError):
    """A device, an engine, an optional library or a program is missing (exit 4)."""

    exit_status = 4


class NetworkError(ConvNextError):
    """A download, a store or a cluster cannot be reached, after all retries (exit 5)."""

    exit_status = 5


class OutputError(ConvNextError):
    """The output cannot be written: full disk, permissions (exit 74, EX_IOERR)."""

    exit_status = 74


_NO_MEMORY = (
    "Cannot allocate memory",
    "can't allocate memory",
    "could not allocate",
    "ailed to allocate",
    "Available memory of",  # of an arena
    "ALLOC_FAILED",
    "bad_alloc",
    "not enough memory",
    "out of memory",
    "failed to map segment",
    "can't start new thread",
    "PyObject pointer is null",
)


def lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out, here or on a GPU. Runtimes, library loaders and threads report it only as text."""
    if isinstance(error, RuntimeError) and "Resource temporarily unavailable" in str(error):  # a thread of a runtime
        return True
    if (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's, which is not loaded here
        return True
    text = str(error)
    return any(words in text for words in _NO_MEMORY)


class PhotoError(Exception):
    """One photo cannot be labelled. It becomes a failed row and never ends a run."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        message = well_formed(message)
        super().__init__(message)
        self.kind: FailureKind = kind
        self.message = message

    def __reduce__(self) -> tuple[type[PhotoError], tuple[FailureKind, str]]:
        return PhotoError, (self.kind, self.message)  # by default it would be rebuilt from its message alone
