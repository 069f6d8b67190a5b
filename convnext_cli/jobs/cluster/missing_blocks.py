"""Plan: which blocks there are, and which of them have no part yet."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Queue
from threading import Thread

from convnext_cli.jobs.cluster.block import Block
from convnext_cli.jobs.photo_state import Found

MOST = 500  # blocks that are handed to Ray at once, about a million photos
PATIENCE = 5.0  # seconds of listing after which the first ones are handed over


def distinct(photos: Iterable[Found]) -> Iterator[Found]:
    """Each photo once, where one may be reached twice; what was seen is kept on disk."""
    seen = sqlite3.connect("")  # a temporary file
    try:
        seen.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
        for state in photos:
            if seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (state.key,)).rowcount:
                yield state
    finally:
        seen.close()


def waves(blocks: Iterator[Block], is_missing: Callable[[Block], bool]) -> Iterator[list[Block]]:
    """Blocks that are wanted, many at a time, while a thread goes on listing. Raises what listing raises."""
    queue: Queue[Block | BaseException | None] = Queue(2 * MOST)

    def walk() -> None:
        end: BaseException | None = None
        try:
            for block in blocks:
                if is_missing(block):
                    queue.put(block)
        except BaseException as error:
            end = error
        queue.put(end)

    Thread(target=walk, name="list", daemon=True).start()
    over = False
    while not over:
        wave: list[Block] = []
        until = time.monotonic() + PATIENCE
        while len(wave) < MOST:
            try:
                block = queue.get(timeout=None if not wave else max(0.0, until - time.monotonic()))
            except Empty:
                break
            if isinstance(block, BaseException):
                raise block
            if block is None:
                over = True
                break
            wave.append(block)
        if wave:
            yield wave
