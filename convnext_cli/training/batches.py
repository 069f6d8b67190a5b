"""The photos of each step, in an order that the seed alone decides, from any step on."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convnext_cli.base.errors import ModelError, PhotoError
from convnext_cli.photos.pillow_warnings import quiet_pillow
from convnext_cli.training import augment
from convnext_cli.training.photo_cache import Pixels, Streamed
from convnext_cli.training.seeds import generator
from convnext_cli.training.settings import TrainingSettings

_Key = tuple[int, int, int]  # epoch, photo, size


@dataclass(frozen=True)
class Plan:
    """Which photos each step has. photos: in all. batch: of a step, over all processes."""

    photos: int
    batch: int
    seed: int

    @property
    def steps(self) -> int:
        """Of an epoch; photos that fill no batch wait for the next."""
        return self.photos // self.batch

    def order(self, epoch: int) -> Tensor:
        return torch.randperm(self.photos, generator=generator(self.seed, "order", epoch))

    def numbers(self, first: int, rank: int = 0, world: int = 1) -> Iterator[tuple[int, Tensor]]:
        """From a step on, without end: the epoch, and the photos of a process's part of the batch."""
        step, share = first, self.batch // world
        while True:
            epoch, begun = divmod(step, self.steps)
            order = self.order(epoch)
            for place in range(begun, self.steps):
                begin = place * self.batch + rank * share
                yield epoch, order[begin : begin + share]
                step += 1


class Batches:
    """uint8 photos (n, 3, size, size), or whole ones for ``affine``, with the numbers of the photos.

    size_at: the edge for a step. workers: processes that change photos one at a time.
    """

    def __init__(
        self,
        pixels: Pixels,
        recipe: TrainingSettings,
        plan: Plan,
        size_at: Callable[[int], int],
        *,
        first: int,
        rank: int,
        world: int,
        workers: int,
        device: torch.device,
    ) -> None:
        self._recipe, self._plan, self._first, self._rank, self._world = recipe, plan, first, rank, world
        self._pixels, self._size_at, self._workers, self._device = pixels, size_at, workers, device
        self._whole: Tensor | None = None
        if recipe.augment == "affine":
            self._whole = pixels.whole()
            if self._whole is None:
                raise ModelError(
                    "augment=affine changes whole batches on the device, and needs all photos in memory",
                    "use augment=trivial, or a machine with more memory",
                )
            if device.type != "cpu":
                self._whole = self._whole.to(device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        numbers = self._plan.numbers(self._first, self._rank, self._world)
        if self._whole is not None:
            for _, some in numbers:
                yield self._whole[some.to(self._device)], some
            return
        keys = _Keys(numbers, self._size_at, self._first)
        changed = _Changed(self._pixels, self._recipe)
        for batch in _loader(changed, keys, self._workers, pinned=self._device.type == "cuda"):
            yield _photos(batch).to(self._device, non_blocking=True), batch[1]


class _Keys:
    """Batches of keys, for the processes that make photos of them."""

    def __init__(self, numbers: Iterator[tuple[int, Tensor]], size_at: Callable[[int], int], first: int) -> None:
        self._numbers, self._size_at, self._first = numbers, size_at, first

    def __iter__(self) -> Iterator[list[_Key]]:
        for step, (epoch, some) in enumerate(self._numbers, self._first):
            size = self._size_at(step)
            yield [(epoch, number, size) for number in some.tolist()]


# A photo, its number, and why it cannot be read: an error that comes from another process loses its words.
_Item = tuple[Tensor | None, int, str | None]
_Batch = tuple[Tensor | None, Tensor, str | None]


class _Changed(Dataset[_Item]):
    def __init__(self, pixels: Pixels, recipe: TrainingSettings) -> None:
        self._pixels, self._change = pixels, augment.OnePhoto(recipe)

    def __getitem__(self, key: _Key) -> _Item:
        epoch, number, size = key
        try:
            return self._change(self._pixels[number], size, epoch, number), number, None
        except PhotoError as error:
            return None, number, f"{error.kind}: {error.message}"


def _collate(items: Sequence[_Item]) -> _Batch:
    problem = next((problem for _, _, problem in items if problem is not None), None)
    photos = None if problem else torch.stack([photo for photo, _, _ in items if photo is not None])
    return photos, torch.tensor([number for _, number, _ in items]), problem


def _photos(batch: _Batch) -> Tensor:
    """The photos of a batch. Raises ModelError for one that cannot be read."""
    photos, _, problem = batch
    if photos is None:
        raise gone(str(problem))
    return photos


def judged(pixels: Pixels, numbers: Sequence[int], batch: int, workers: int) -> Iterator[Tensor]:
    """uint8 photos (n, 3, height, width) by their numbers, unchanged."""
    parts = [list(numbers[start : start + batch]) for start in range(0, len(numbers), batch)]
    tensor = pixels.whole()
    if tensor is not None:
        yield from (tensor[torch.tensor(part)] for part in parts)
    elif isinstance(pixels, Streamed) and workers:
        yield from map(_photos, _loader(_Plain(pixels), parts, workers))
    else:
        for part in parts:
            yield _photos(_collate([_Plain(pixels)[number] for number in part]))


class _Plain(Dataset[_Item]):
    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def __getitem__(self, number: int) -> _Item:
        try:
            return self._pixels[number], number, None
        except PhotoError as error:
            return None, number, f"{error.kind}: {error.message}"


def gone(problem: str) -> ModelError:
    """The error for a photo that could be read before."""
    return ModelError(f"a photo can no longer be read: {problem}", "fix it, and run the same command again")


def _loader(
    photos: Dataset[_Item], batches: Iterable[list[int]] | Iterable[list[_Key]], workers: int, *, pinned: bool = False
) -> DataLoader[_Item]:
    """A DataLoader of any number of processes: torch warns of many, counting processors by affinity at its own time."""
    # processes that share what this one has in memory, where the system can do that safely
    start = "fork" if sys.platform == "linux" else "spawn"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        return DataLoader(
            photos,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pinned,
            multiprocessing_context=start if workers else None,
            worker_init_fn=_leave_signals,
        )


def _leave_signals(_number: int) -> None:
    """Ctrl-C reaches these processes too, and is for the one that they work for to obey."""
    quiet_pillow()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
