"""Photos of a dataset, decoded by threads, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TypeVar

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.threads import Budget
from convnext_cli.datasets.labelled import Dataset, LabelledPhoto
from convnext_cli.photos.decode import DEFAULT_MAX_PIXELS, Decoded, decode
from convnext_cli.predict.byte_budget import room_for
from convnext_cli.predict.decode_threads import Decoders, Limit, Task

T = TypeVar("T")


def decoded(
    dataset: Dataset,
    photos: Iterable[LabelledPhoto],
    use: Callable[[Decoded], T],
    *,
    threads: int = 1,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    enough: int | None = None,
    timeout: float | None = None,
) -> Iterator[tuple[LabelledPhoto, T | PhotoError]]:
    """Decode photos on threads, and yield each with its result, in order.

    Args:
        dataset: the data.
        photos: photos of it.
        use: makes the result from the decoded photo, in a thread.
        threads: how many decode.
        max_pixels, enough: as for ``decode``.
        timeout: as for ``Preprocessor``.

    Returns:
        Pairs of a photo and its result, or the reason why it cannot be decoded.
    """
    return _decoded(dataset, photos, use, threads=threads, max_pixels=max_pixels, enough=enough, timeout=timeout)


def sizes(
    dataset: Dataset, photos: Iterable[LabelledPhoto], *, enough: int
) -> Iterator[tuple[LabelledPhoto, tuple[int, int] | PhotoError]]:
    """The width and height of each upright photo at full size, or the reason why it cannot be decoded.

    Args:
        dataset: the data.
        photos: photos of it.
        enough: as for ``decode``.
    """
    return _decoded(dataset, photos, lambda result: (result.width, result.height), enough=enough)


def _decoded(
    dataset: Dataset,
    photos: Iterable[LabelledPhoto],
    use: Callable[[Decoded], T],
    *,
    threads: int = 1,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    enough: int | None = None,
    timeout: float | None = None,
) -> Iterator[tuple[LabelledPhoto, T | PhotoError]]:
    notes = dataset.in_flight

    def work(photo: LabelledPhoto, task: Task[LabelledPhoto, T | PhotoError]) -> T | PhotoError:
        slot = -1 if notes is None else notes.begin(photo.path)
        try:
            with room_for(dataset.size(photo), task):
                data = dataset.read(photo)
                task.compute()
                return use(decode(data, max_pixels=max_pixels, enough=enough))
        except PhotoError as error:
            return error
        except MemoryError:
            return PhotoError("out_of_memory", "there is not enough memory to decode it")
        finally:
            if notes is not None:
                notes.end(slot)

    with closing(Decoders(threads, work, Budget(threads), timeout).in_order(photos)) as tasks:
        for task in tasks:
            answer = task.result()
            if answer is None:  # it was given up
                answer = PhotoError("timeout", Limit.of(timeout).exceeded)
            yield task.item, answer
