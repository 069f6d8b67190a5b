"""How the processor treats subnormal numbers belongs to a thread, and so to the program that calls us.

Runtimes have it flush them to zero, which is quicker, in the thread that opens a model, and leave it so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import ctypes

    State: TypeAlias = ctypes.Array[ctypes.c_char]  # the system's fenv_t

_BYTES = 256  # more than fenv_t takes anywhere


class Borrowed:
    """The environment of a runtime, in force while it is opened and while it computes in the caller's thread."""

    def __init__(self) -> None:
        self._theirs: State | None = None

    @contextmanager
    def opening(self) -> Iterator[None]:
        ours = _read()
        try:
            yield
        finally:
            self._theirs = _read()
            _write(ours)

    @contextmanager
    def computing(self) -> Iterator[None]:
        ours = _read()
        _write(self._theirs)
        try:
            yield
        finally:
            _write(ours)


def _read() -> State | None:
    """The environment of this thread; None where the system's library cannot say."""
    if (library := _library()) is None:
        return None
    import ctypes

    state = ctypes.create_string_buffer(_BYTES)
    return state if library.fegetenv(state) == 0 else None


def _write(state: State | None) -> None:
    if state is not None and (library := _library()) is not None:
        library.fesetenv(state)


@cache
def _library() -> ctypes.CDLL | None:
    import ctypes

    try:
        library = ctypes.CDLL(None)
        for function in (library.fegetenv, library.fesetenv):
            function.argtypes = [ctypes.c_void_p]
    except (AttributeError, OSError, TypeError):  # Windows, and C libraries that keep it elsewhere
        return None
    return library
