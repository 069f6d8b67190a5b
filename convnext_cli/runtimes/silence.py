"""Silence for libraries that talk: to Python's streams, through ``warnings`` and ``logging``, or from C++."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress


class Said:
    """What was said meanwhile."""

    text = ""

    def last(self) -> str:
        """The last line that says something, for an error's message."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


@contextmanager
def quiet() -> Iterator[Said]:
    """Keep standard output and error from the screen, down to their file descriptors, and keep what was said.

    The whole process is silent meanwhile, other threads too.
    """
    output = Said()
    _flush()
    with (
        tempfile.TemporaryFile() as file,
        os.fdopen(os.dup(file.fileno()), "w", encoding="utf-8", errors="replace", buffering=1) as stream,
        redirect_stdout(stream),  # they need not end in 1 and 2
        redirect_stderr(stream),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        kept = [os.dup(descriptor) for descriptor in (1, 2)]
        try:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            yield output
        finally:
            _flush()
            for descriptor, before in zip((1, 2), kept, strict=True):
                os.dup2(before, descriptor)
                os.close(before)
            file.seek(0)
            output.text = file.read().decode("utf-8", "replace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
            stream.flush()  # type: ignore[union-attr]
