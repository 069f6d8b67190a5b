"""The durable job: what is there, what of it is to do, and its rows into the store, each once."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from convnext_cli.labelling.store import Found, Store
from convnext_cli.photos.find import Photo
from convnext_cli.pipeline import Pipeline
from convnext_cli.rows import Row

COMMIT_SECONDS = 1.0  # at most this much work is done again after a kill


class StopAtFailure(Exception):
    """The first failure, where the user wants to stop at it. row: of the photo."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.path)
        self.row = row


@dataclass
class Tally:
    """What one run did. found: photos that are there. todo: of them to label. done, failed: so far."""

    found: int = 0
    todo: int = 0
    done: int = 0
    failed: int = 0
    vanished: int = 0


def made_with(pipeline: Pipeline) -> dict[str, Any]:
    """What else than the weights decides what a row says."""
    labels = pipeline.labels
    return {
        "recipe": pipeline.recipe.to_dict(),
        "labels": f"{labels.name} ({sha256(json.dumps(labels.to_dict()).encode()).hexdigest()[:12]})",
        "scores": pipeline.scores,
        "temperature": pipeline.temperature,
        "top": pipeline.k,
        "min_score": pipeline.min_score,
        "floors": dict(pipeline.floors),
        "dtype": pipeline.engine.dtype,
        "fast_decode": pipeline.fast_decode,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, by what two settings differ."""
    words = {
        "model_sha256": "weights",
        "top": "guesses (-k)",
        "min_score": "--min-score",
        "fast_decode": "--fast-decode",
    }
    found = []
    for name in now:
        if before.get(name) == now[name]:
            continue
        short = not isinstance(now[name], dict) and name != "model_sha256"
        found.append(f"{words.get(name, name)} {before.get(name)} → {now[name]}" if short else words.get(name, name))
    return found


def look(
    store: Store,
    photos: Iterable[Photo],
    roots: Iterable[str],
    settings: int,
    *,
    mixing: bool = False,
    retry_failed: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Walk, and find out what is to be done; nothing is decoded.

    roots: folders that the walk covers as a whole, so that what is in the store and not there has vanished.
    """
    for seen in store.found(map(_found, photos), settings, mixing=mixing, retry_failed=retry_failed):
        progress(seen)
    vanished = store.mark_vanished(roots)
    store.commit()
    found, todo = store.counts_found()
    return Tally(found, todo, vanished=vanished)


def _found(photo: Photo) -> Found:
    """What a photo was when it was found: taken before it is read, so that a later change is not overlooked."""
    if photo.problem is None:
        try:
            seen = os.stat(photo.path)  # noqa: PTH116 - surrogates; follows links
        except (OSError, ValueError):  # reading it will say why
            pass
        else:
            return Found(photo, seen.st_size, seen.st_mtime_ns)
    return Found(photo, None, None)


def run(
    store: Store,
    pipeline: Pipeline,
    settings: int,
    tally: Tally,
    *,
    strict: bool = False,
    progress: Callable[[Row], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Label what ``look`` found to do, and commit about every second and at the end, however it ends.

    tally: counted while it goes. progress: told each row. strict: raise StopAtFailure at the first failure.
    """
    underway: deque[Found] = deque()

    def feed() -> Iterator[Photo]:
        for found in store.todo():
            underway.append(found)
            yield found.photo

    try:
        last = clock()
        for row in pipeline.rows(feed()):
            found = underway.popleft()
            if row.path != found.photo.path:  # rows come in the order of photos; a row under another name is worst
                raise AssertionError(f"the row of {row.path!r} came for {found.photo.path!r}")
            store.put(found, row, settings)
            tally.done += 1
            tally.failed += row.error is not None
            progress(row)
            if strict and row.error is not None:
                raise StopAtFailure(row)
            if clock() - last >= COMMIT_SECONDS:
                store.commit()
                last = clock()
    finally:
        store.commit()
