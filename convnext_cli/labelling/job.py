"""The durable job: what is there, what of it is to do, and its rows into the store, each once."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from convnext_cli.errors import PhotoError
from convnext_cli.labelling.found import Found, state_of
from convnext_cli.labelling.store import Store
from convnext_cli.photos.photo import Photo
from convnext_cli.pipeline import Pipeline
from convnext_cli.remote.addresses import is_url
from convnext_cli.remote.listing import overlapped
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
    left_out: Callable[[str, str], bool] = lambda root, path: False,
    progress: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Walk, and find out what is to be done; nothing is decoded.

    roots: folders that the walk covers as a whole, so that what is in the store and not there has vanished.
    left_out: as for ``Store.mark_vanished``.
    """
    # URLs of a list have not been looked at yet, and each would be waited for
    all_found = overlapped(state_of, photos, lambda photo: photo.seen is None and is_url(photo.path))
    for seen in store.found(all_found, settings, mixing=mixing, retry_failed=retry_failed):
        progress(seen)
    vanished = store.mark_vanished(roots, left_out)
    store.commit()
    found, todo = store.counts_found()
    return Tally(found, todo, vanished=vanished)


@dataclass
class _End:
    """All photos of a shard are on their way."""

    shard: Found
    broken: PhotoError | None


def run(
    store: Store,
    pipeline: Pipeline,
    settings: int,
    tally: Tally,
    *,
    members: Callable[[Photo], Iterator[Photo]] = lambda shard: iter((shard,)),
    mixing: bool = False,
    retry_failed: bool = False,
    strict: bool = False,
    progress: Callable[[Row], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Label what ``look`` found to do, and commit about every second and at the end, however it ends.

    tally: counted while it goes. members: opens a shard. mixing, retry_failed: as for ``look``. progress: told each
    row. strict: raise StopAtFailure at the first failure.
    """
    underway: deque[Found | _End] = deque()

    def feed() -> Iterator[Photo]:
        for each in store.todo():
            if not each.photo.shard:
                underway.append(each)
                yield each.photo
                continue
            broken = None
            for photo in members(each.photo):
                inside = each.inside(photo)
                if photo.path == each.photo.path:
                    broken = photo.problem
                elif not store.found_inside(inside, settings, mixing=mixing, retry_failed=retry_failed):
                    tally.found += 1
                    continue
                tally.found += 1
                tally.todo += 1
                underway.append(inside.light())
                yield photo
            underway.append(_End(each, broken))

    def close_shards() -> None:
        while underway and isinstance(underway[0], _End):
            end = underway.popleft()
            assert isinstance(end, _End)
            store.read_to_end(end.shard, end.broken)

    try:
        last = clock()
        for row in pipeline.rows(feed()):
            close_shards()
            of = underway.popleft()
            assert isinstance(of, Found)
            if row.path != of.photo.path:  # rows come in the order of photos; a row under another name is worst
                raise AssertionError(f"the row of {row.path!r} came for {of.photo.path!r}")
            store.put(of, row, settings)
            tally.done += 1
            tally.failed += row.error is not None
            progress(row)
            if strict and row.error is not None:
                raise StopAtFailure(row)
            if clock() - last >= COMMIT_SECONDS:
                store.commit()
                last = clock()
        close_shards()
    finally:
        store.commit()
