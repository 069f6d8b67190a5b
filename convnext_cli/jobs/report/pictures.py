"""Small pictures of photos, made by several threads and handed on in order."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.text import JsonObject
from convnext_cli.base.threads import Budget
from convnext_cli.jobs.entry import Entry
from convnext_cli.photos.decode import DEFAULT_MAX_PIXELS, decode, read_file
from convnext_cli.predict.decode_threads import Decoders, Task

EDGE = 160  # pixels of the longer edge
QUALITY = 70
PICTURED = ("ok", "unknown")  # what failed has nothing to show, what vanished is there no more

Picture = Callable[[str], bytes]
Drawn = tuple[bytes | None, JsonObject | None]
MakeMaps = Callable[[Entry, Task[tuple[Entry, bool], Drawn]], JsonObject | None]


def small_jpeg(file: str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """A small JPEG of a photo, upright, with nothing of the file but its pixels. Raises PhotoError."""
    image = decode(read_file(file), max_pixels=max_pixels, enough=EDGE).image
    image.thumbnail((EDGE, EDGE))
    image.info.clear()  # comments and places are not for everyone who is shown the page
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()


def with_pictures(
    entries: Iterable[Entry],
    picture: Picture,
    *,
    threads: int,
    most: int,
    timeout: float | None,
    maps: MakeMaps | None = None,
) -> Generator[tuple[Entry, bytes | None, JsonObject | None], None, None]:
    """Each entry, in order, with its picture; None where it failed or vanished, cannot be read now, or comes too late.

    picture: makes one from the path of a file. most: entries that get one. timeout: seconds for one of them, or None.
    maps: makes the maps of an entry that gets a picture, inside its task; may raise PhotoError. Without, they are None.
    """

    def chosen() -> Iterator[tuple[Entry, bool]]:
        left = most
        for entry in entries:
            pictured = left > 0 and entry.row.status in PICTURED
            left -= pictured
            yield entry, pictured

    def make(item: tuple[Entry, bool], task: Task[tuple[Entry, bool], Drawn]) -> Drawn:
        entry, pictured = item
        if not pictured:
            return None, None
        try:  # it reads and decodes in one go, all of which counts as reading: by the clock
            jpeg = picture(entry.file)
        except (PhotoError, MemoryError):  # its row stands without one
            return None, None
        try:
            return jpeg, None if maps is None else maps(entry, task)
        except (PhotoError, MemoryError):
            return jpeg, None

    with closing(Decoders(threads, make, Budget(threads), timeout).in_order(chosen())) as tasks:
        for task in tasks:
            yield task.item[0], *(task.result() or (None, None))
