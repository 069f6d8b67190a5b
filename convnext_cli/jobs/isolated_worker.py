"""Photos that may end the process that decodes them: the process that does. ``isolated_decoding.py``
starts it and asks.

Answers are pickles on standard output: ``("answer", value)`` for each, and ``("end",)``.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from convnext_cli.base.threads import Budget
from convnext_cli.photos.photo import Photo
from convnext_cli.photos.pillow_warnings import quiet_pillow
from convnext_cli.predict.decode_threads import Limit, Task
from convnext_cli.predict.preprocess import Preprocessor, Ready

_MORE = 4  # times the limit after which the system ends this process, should the parent be gone


@dataclass(frozen=True)
class PhotoRequest:
    """Decode and preprocess a photo. memory: bytes that this may take; None for no limit."""

    photo: Photo
    memory: int | None


@dataclass(frozen=True)
class ShardRequest:
    """Read the photos of a shard. members: opens it."""

    members: Callable[[Photo], Iterator[Photo]]
    shard: Photo


def serve() -> None:
    """Answer requests until the parent closes its end, or is gone."""
    _end_with_parent()
    quiet_pillow()
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for printed in (1, 2):  # libraries print as they like
        os.dup2(nowhere, printed)
    preprocessor, limit = pickle.load(sys.stdin.buffer)
    _warm_up(preprocessor)

    def say(*words: object) -> None:
        pickle.dump(words, answers)
        answers.flush()

    say("answer", "ready")
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        _limit(limit)
        for answer in _answers(preprocessor, request):
            say("answer", answer)
            _limit(limit)
        say("end")


def _warm_up(preprocessor: Preprocessor) -> None:
    """Have all loaded that the first photo needs, before one is begun: a kill from outside is not to come then."""
    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "JPEG")
    photo = Photo("", stream.getvalue())
    preprocessor.prepare(photo, Task(photo, Budget(1)))


def _answers(preprocessor: Preprocessor, request: PhotoRequest | ShardRequest) -> Iterator[Ready | Photo]:
    if isinstance(request, ShardRequest):
        yield from request.members(request.shard)
        return
    _allow(request.memory)
    task: Task[Photo, Ready] = Task(request.photo, Budget(1))
    ready = preprocessor.prepare(request.photo, task)
    ready.photo = Photo(request.photo.path)  # the parent has the bytes
    yield ready


def _allow(memory: int | None) -> None:
    """Have the system refuse more memory than this beyond what is in use; None for no such limit."""
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wished = most
    if memory is not None:
        with suppress(OSError, StopIteration), open("/proc/self/status") as file:  # noqa: PTH123
            wished = memory + 1024 * int(next(line for line in file if line.startswith("VmData:")).split()[1])
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (wished if most == -1 else min(wished, most), most))


def _limit(limit: Limit) -> None:
    """Have the system end this process when it has computed for far longer than it may."""
    with suppress(OSError, AttributeError, ValueError):
        signal.setitimer(signal.ITIMER_VIRTUAL, _MORE * limit.computing)


def _end_with_parent() -> None:
    """Have the system end this process with its parent, and take it before others when memory runs out."""
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")
    if os.getppid() != parent:
        os._exit(0)
