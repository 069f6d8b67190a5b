"""Photos of a dataset, decoded by threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from convnext_cli.datasets.labelled import Dataset, LabelledPhoto
from convnext_cli.decoders import Decoders, Task
from convnext_cli.errors import PhotoError
from convnext_cli.photos.decode import DEFAULT_MAX_PIXELS, decode
from convnext_cli.threads import Budget

if TYPE_CHECKING:
    from PIL import Image

_AHEAD = 4  # photos a thread
T = TypeVar("T")


def decoded(
    dataset: Dataset,
    photos: Iterable[LabelledPhoto],
    use: Callable[[Image.Image], T],
    *,
    threads: int = 1,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    enough: int | None = None,
    timeout: float | None = None,
) -> Iterator[tuple[LabelledPhoto, T | PhotoError]]:
    """What ``use`` makes of each upright RGB photo, in a thread; or why it cannot be decoded.

    enough: as for ``decode``. timeout: seconds for one photo, or None.
    """

    def work(photo: LabelledPhoto, task: Task[LabelledPhoto, T | PhotoError]) -> T | PhotoError:
        try:
            data = dataset.read(photo)
            task.compute()
            return use(decode(data, max_pixels=max_pixels, enough=enough).image)
        except PhotoError as error:
            return error
        except MemoryError:
            return PhotoError("out_of_memory", "there is not enough memory to decode it")

    decoders = Decoders(threads, work, Budget(threads), timeout)
    ahead: deque[Task[LabelledPhoto, T | PhotoError]] = deque()

    def first() -> tuple[LabelledPhoto, T | PhotoError]:
        task = ahead.popleft()
        answer = task.result()
        if answer is None:  # it was given up
            answer = PhotoError("timeout", f"it took more than {timeout or 0:g} seconds")
        return task.item, answer

    try:
        for photo in photos:
            ahead.append(decoders.submit(photo))
            if len(ahead) > _AHEAD * threads:
                yield first()
        while ahead:
            yield first()
    finally:
        decoders.close()
