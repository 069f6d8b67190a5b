"""What arrives in folders, as it arrives: batches of changed paths, each when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Event

from convnext_cli.base.errors import UnavailableError

_QUIET = 400  # milliseconds without a change after which a batch of changes is handed over
_LONGEST = 2_000  # milliseconds after which it is handed over though changes go on

State = tuple[int, int] | None


def changes(folders: list[str], stop: Event) -> Iterator[list[str]]:
    """Paths that are new, changed, renamed or gone, in batches, until ``stop`` is set. The first batch is empty: from
    then on nothing is missed.

    A file that still grows comes in a later batch, when its size and time have stood still from one look to the next.
    Folders that arrive whole come as one path. Raises UnavailableError when watchfiles is not there.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise UnavailableError("--watch needs watchfiles", "pip install watchfiles") from error
    growing: dict[str, State] = {}
    events = watch(
        *folders,
        watch_filter=None,
        stop_event=stop,
        step=_QUIET,
        debounce=_LONGEST,
        rust_timeout=_QUIET,
        yield_on_timeout=True,  # what grew is looked at again though nothing else happens
        raise_interrupt=True,
    )
    is_first = True
    for batch in events:
        if is_first:
            is_first = False
            yield []
        for _, path in batch:
            growing.setdefault(path, (-1, -1))
        ready = []
        for path, before in list(growing.items()):
            now = _state(path)
            if now == before or now is None:
                ready.append(path)
                del growing[path]
            else:
                growing[path] = now
        if ready:
            yield sorted(ready)


def _state(path: str) -> State:
    """What tells that a file is as it was; None when it is gone, and one constant for folders."""
    try:
        status = os.stat(path)  # noqa: PTH116 - surrogates
    except OSError:
        return None
    if os.path.isdir(path):  # noqa: PTH112
        return (-2, status.st_ino)
    return status.st_size, status.st_mtime_ns
