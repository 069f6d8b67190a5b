"""Standard streams that the caller closed: nothing else may take their numbers."""

from __future__ import annotations

import os
import sys

_output_is_closed = False


def output_is_closed() -> bool:
    """Whether the caller closed standard output."""
    return _output_is_closed


def open_closed_streams() -> None:
    """Put the null device where standard input, output or error is closed.

    Otherwise the next file that is opened becomes descriptor 0, 1 or 2, and what a C library prints lands in it. A
    standard output that was closed fails when something is written to it, and not before: ``label -o`` needs none.
    """
    global _output_is_closed
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _output_is_closed = _output_is_closed or descriptor == 1
            # standard output is opened for reading alone: writing to it is an error, as it was
            opened = os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - until the process ends
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
