"""Decoding and preprocessing of photos, on threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, Literal, Protocol

import numpy as np

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.threads import Budget
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.close_resize import load_kernel, no_kernel
from convnext_cli.photos.content_key import content_key
from convnext_cli.photos.decode import DEFAULT_MAX_PIXELS, check_bytes, decode, pixels_of, read_file
from convnext_cli.photos.photo import Photo, PixelLevel
from convnext_cli.photos.resize import Method, apply_preprocessing
from convnext_cli.predict.byte_budget import ByteBudget, ByteQueue, room_for
from convnext_cli.predict.decode_threads import Decoders, Limit, Task
from convnext_cli.predict.stage_times import Times
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.filesystems import READERS

# Bytes above which an object counts as large. Of these only a few are read at a time, however many readers there are:
# each is held in memory until it is decoded.
LARGE = 32 * 2**20
# Photos for which it does not pay to load torch: with 12 megapixels, it takes as long as it saves.
FEW = 64
# Bytes of photos from shards that wait to be decoded.
IN_FLIGHT = 256 * 2**20
# Bytes of photos at full size that wait for the network.
DECODED = 512 * 2**20
_few_large = Semaphore(4)


@dataclass
class Ready:
    """A photo that was prepared: its tensor, or why there is none.

    Args:
        photo: the photo, without its bytes.
        width, height: of the upright photo, in pixels; None if it was not decoded.
        tensor: float32 (3, H, W), or uint8 (H, W, 3) for a model that does its own preprocessing.
        error: why there is no tensor.
        thumbnail: a small RGB picture (Pillow), if it was asked for.
        content: the key of its bytes (``photos.content_key``), if it was asked for.
        seconds: the time of each stage, as ``Times.add`` takes them.
    """

    photo: Photo
    width: int | None = None
    height: int | None = None
    tensor: np.ndarray | None = None
    error: PhotoError | None = None
    thumbnail: Any = None
    content: str | None = None
    seconds: tuple[float, ...] = ()


class InFlight(Protocol):
    """Records the photos that are being worked on, so that they are known after the process has died."""

    def begin(self, path: str) -> int: ...

    def end(self, slot: int) -> None: ...

    def batch(self, paths: Iterable[str]) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """Turns photos into tensors.

    Args:
        preprocessing: that of the model, or the user's own.
        as_photos: the model does its preprocessing itself, and takes uint8 photos.
        workers: threads that decode.
        max_pixels: larger photos fail as ``too_large``.
        pixels: how exactly photos become pixels.
        kernel_from: the number of the first photo for which ``pixels`` may load torch; before, Pillow resizes.
        timeout: seconds for reading one photo, and of processor time for decoding it; None for an hour and two minutes.
        thumbnail: edge in pixels of the small picture kept in a row; 0 for none.
        content: compute the key of each photo's bytes.
        times: to which the time of each photo is added.
        in_flight: records the photos that are being worked on.
        whole_profiles: apply colour profiles before the resize, as earlier versions did, for a job that they began.
    """

    preprocessing: Preprocessing
    as_photos: bool = False
    workers: int = 1
    max_pixels: int = DEFAULT_MAX_PIXELS
    pixels: PixelLevel = "exact"
    kernel_from: int = FEW
    timeout: float | None = None
    thumbnail: int = 0
    content: bool = False
    times: Times = field(default_factory=Times)
    in_flight: InFlight | None = None
    whole_profiles: bool = False

    @property
    def profiles(self) -> Literal["whole", "resized"]:
        """Whether colour profiles are applied to whole photos, or to what the resize and the crop leave of them."""
        bytes_are_resized = self.preprocessing.resize != "none" and not self.preprocessing.float_resize
        return "resized" if bytes_are_resized and not self.as_photos and not self.whole_profiles else "whole"

    def _method(self, number: int) -> Method:
        """How the photo of a number is resized: the same in every run over the same photos."""
        if self.pixels == "exact" or self.as_photos:
            return "exact"
        if number >= self.kernel_from and no_kernel(self.preprocessing) is None:
            return "close"
        return "exact" if self.pixels == "close" else "rough"

    def prepared(self, photos: Iterator[Photo], budget: Budget, ahead: int) -> Iterator[Ready]:
        """Prepare photos on threads, and yield them in their order.

        Args:
            photos: the photos.
            budget: processor threads that are shared with the engine.
            ahead: how many tensors may wait.
        """
        # Bounded: enough for the batch being filled and the next photos, never the whole folder. A separate thread
        # asks for photos, so that prepared photos are not held up by a slow source.
        pending: SimpleQueue[Task[Photo, Ready] | BaseException | None] = SimpleQueue()
        room = Semaphore(ahead + self.workers)
        files = ByteBudget(IN_FLIGHT)  # photos that came with their bytes, from a shard
        photos_decoded = ByteQueue(DECODED)  # at full size, for models that resize them
        numbers: dict[int, int] = {}  # by identity of the photo

        def work(photo: Photo, task: Task[Photo, Ready]) -> Ready:
            number = numbers.pop(id(photo), 0)
            try:
                return self.prepare(photo, task, lambda size: photos_decoded.admit(number, size), number)
            finally:
                files.give(photo)
                task.item = _without_bytes(photo)

        decoders = Decoders(self.workers, work, budget, self.timeout)
        stop = Event()

        def feed() -> None:
            end: BaseException | None = None
            try:
                is_remote = False
                for number, photo in enumerate(photos):
                    if not is_remote and photo.data is None and is_url(photo.path):
                        is_remote = True
                        decoders.grow(READERS)
                        self.times.readers = READERS
                        room.release(READERS)
                    room.acquire()
                    if photo.data is not None:
                        files.take(photo, len(photo.data))
                    if stop.is_set():
                        return
                    numbers[id(photo)] = number
                    if number == self.kernel_from and self._method(number) == "close":
                        load_kernel()
                    pending.put(decoders.submit(photo))
            except BaseException as error:
                end = error
            pending.put(end)

        Thread(target=feed, name="find", daemon=True).start()
        try:
            while (task := pending.get()) is not None:
                if isinstance(task, BaseException):
                    raise task
                ready = task.result() or self._late(task.item)
                files.give(task.item)  # its thread may still work on it, but must not block the others
                photos_decoded.take()
                room.release()
                yield ready
        finally:
            stop.set()
            decoders.close()
            files.close()
            photos_decoded.close()
            room.release()  # release the feeder, in case it waits for room

    def _late(self, photo: Photo) -> Ready:
        return Ready(_without_bytes(photo), error=PhotoError("timeout", Limit.of(self.timeout).exceeded))

    def prepare(
        self,
        photo: Photo,
        task: Task[Photo, Ready],
        admit: Callable[[int], None] = lambda _: None,
        number: int = 0,
    ) -> Ready:
        """Read, decode and prepare one photo.

        Args:
            photo: to be read.
            task: that this is part of.
            admit: waits until so many bytes of a decoded photo may be held.
            number: of the photo, among those of a stream.
        """
        if self.in_flight is None:
            return self._prepare(photo, task, admit, number)
        slot = self.in_flight.begin(photo.path)
        try:
            return self._prepare(photo, task, admit, number)
        finally:
            self.in_flight.end(slot)

    def _prepare(self, photo: Photo, task: Task[Photo, Ready], admit: Callable[[int], None], number: int) -> Ready:
        size = photo.seen.size if photo.seen is not None else None
        if size is not None and size > LARGE and is_url(photo.path):
            with task.hold(_few_large):
                return self._read_and_decode(photo, task, admit, number)
        with room_for(_size_here(photo), task):
            return self._read_and_decode(photo, task, admit, number)

    def _read_and_decode(
        self, photo: Photo, task: Task[Photo, Ready], admit: Callable[[int], None], number: int
    ) -> Ready:
        clock, idle = [time.perf_counter()], 0.0
        ready = Ready(_without_bytes(photo))
        try:
            if photo.problem is not None:
                raise photo.problem
            if photo.seen is not None and photo.seen.size is not None:
                check_bytes(photo.seen.size)
            data = read_file(photo.path) if photo.data is None else photo.data
            if self.content:
                ready.content = content_key(data)
            clock.append(time.perf_counter())
            before = time.perf_counter()
            # before it has a processor, which those ahead of it may need, and not where it has room that they may need
            if self.as_photos and len(data) <= LARGE:
                size = 3 * pixels_of(data)
                task.wait(lambda: admit(size))
            task.compute()
            idle = time.perf_counter() - before
            enough = self.preprocessing.enough if self.pixels == "fast" else None
            decoded = decode(data, max_pixels=self.max_pixels, enough=enough, threads=self.workers)
            clock.append(time.perf_counter() - idle)
            if self.whole_profiles:
                decoded.apply_profile()
            ready.width, ready.height = decoded.width, decoded.height
            if self.as_photos:
                ready.tensor = np.asarray(decoded.image)
            else:
                ready.tensor = apply_preprocessing(self.preprocessing, decoded, method=self._method(number))
            if self.thumbnail:
                ready.thumbnail = decoded.thumbnail(self.thumbnail)
        except PhotoError as error:
            ready.error = error
        except MemoryError:
            ready.error = PhotoError("out_of_memory", "there is not enough memory to decode it")
        clock.append(time.perf_counter() - idle)
        ready.seconds = tuple(after - before for before, after in pairwise(clock))
        return ready


def _without_bytes(photo: Photo) -> Photo:
    """The photo without its bytes, which need not wait for the batch."""
    return photo if photo.data is None else replace(photo, data=None)


def _size_here(photo: Photo) -> int:
    """The bytes of a file on this machine that is still to be read; 0 where there is none."""
    if photo.data is not None or photo.problem is not None or is_url(photo.path):
        return 0
    try:
        return os.stat(photo.path).st_size  # noqa: PTH116 - pathlib refuses some names
    except (OSError, ValueError):  # reading it will say why
        return 0
