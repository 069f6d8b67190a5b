"""Worker: the parent's side of ``worker.py``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

from convnext_cli.base import errors, memory
from convnext_cli.base.text import JsonObject

Say = Callable[[str], None]
_PATIENCE = 5  # seconds for a worker to end by itself


class WorkerError(RuntimeError):
    """Something that nobody foresaw happened in the process that measured; the message is its own."""


class Worker:
    """A process that measures, and the questions to it. Leaving the ``with`` ends it, even in the middle of a call.

    home: its ``CONVNEXT_HOME``.
    """

    def __init__(self, *, home: str | None = None, say: Say = lambda _: None) -> None:
        self._say = say
        self._kills = memory.kills()
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        environment = os.environ | ({"CONVNEXT_HOME": home} if home else {})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "convnext_cli.benchmarking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, **values: object) -> JsonObject:
        """The answer to one request, a method of ``worker.Session``.

        Raises MemoryError when memory ran out, the ConvNextError that the worker met, and WorkerError for anything
        else, which is never taken for the first.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its end is seen below
            self._process.stdin.write(json.dumps({"do": what, **values}).encode() + b"\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            answer = json.loads(line)
            if "say" in answer:
                self._say(answer["say"])
            elif "done" in answer:
                return dict(answer["done"])
            elif "out_of_memory" in answer:
                raise MemoryError(answer["out_of_memory"])
            elif "error" in answer:
                failure = answer["error"]
                raise getattr(errors, failure["kind"])(failure["message"], failure["hint"])
            else:
                failure = answer["defect"]
                error = WorkerError(f"{failure['kind']}: {failure['message']}")
                error.add_note(failure["traceback"])
                raise error
        status = self._process.wait()
        if status == -9 and memory.kills() > self._kills:
            raise MemoryError("the system ended the process because memory had run out")
        raise WorkerError(f"the process that measured ended with status {status}: {self._last_words()}")

    def close(self) -> None:
        """End the process, and wait until it is gone."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when interrupted once more
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._noise.close()

    def _last_words(self) -> str:
        self._noise.seek(0)
        lines = self._noise.read().decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"
