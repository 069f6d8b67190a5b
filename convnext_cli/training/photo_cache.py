"""Photos as bytes of pixels: in memory where they fit, otherwise read again each time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.memory import available
from convnext_cli.datasets import Dataset, LabelledPhoto, open_data
from convnext_cli.datasets.decoding import decoded
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.decode import Decoded, decode
from convnext_cli.photos.resize import as_bytes

SHARE = 0.5  # of free memory that photos may take
_PROBED = 48  # photos that tell how much memory all will take
_ROOM = 1.15  # kept photos are that much larger than what is cropped from them
Shape = Callable[[Decoded], np.ndarray]


class Judged:
    """Photos as the preprocessing of the card wants them, before they are normalised: (height, width, 3)."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.enough: int | None = None

    def __call__(self, photo: Decoded) -> np.ndarray:
        return as_bytes(self.preprocessing, photo)


class Shrunk:
    """Photos no larger than random crops of some edge need.

    Args:
        size: that edge.
        square: all photos as squares of that edge, for batches that are changed at once.
        preprocessing: how the card fits photos into squares; where it keeps all of a photo, so do these, and random
            crops are made of that.
    """

    def __init__(self, size: int, *, square: bool, preprocessing: Preprocessing) -> None:
        self.edge, self.square = round(size * (1.0 if square else _ROOM)), square
        self.enough: int | None = 2 * self.edge
        self._whole = preprocessing.resize if preprocessing.resize in ("squash", "longest") else None
        self._fill = (
            tuple(round(255 * mean) for mean in preprocessing.mean) if preprocessing.fill == "mean" else (0, 0, 0)
        )

    def __call__(self, photo: Decoded) -> np.ndarray:
        image = photo.image
        if self._whole is not None:
            return np.asarray(self._fitted(image))
        short = min(image.size)
        if self.square:
            left, top = (image.width - short) // 2, (image.height - short) // 2
            box = (left, top, left + short, top + short)
            if image.size != (self.edge, self.edge):
                image = image.resize((self.edge, self.edge), Image.Resampling.BICUBIC, box)
        elif short > self.edge:
            sides = [max(1, round(side * self.edge / short)) for side in image.size]
            image = image.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def _fitted(self, image: Image.Image) -> Image.Image:
        """All of a photo in a square, which is as large as the longer side where that is short."""
        edge = self.edge if self.square else min(self.edge, max(image.size))
        if self._whole == "squash":
            return image.resize((edge, edge), Image.Resampling.BICUBIC)
        sides = [max(1, round(side * edge / max(image.size))) for side in image.size]
        square = Image.new("RGB", (edge, edge), self._fill)
        square.paste(
            image.resize((sides[0], sides[1]), Image.Resampling.BICUBIC),
            ((edge - sides[0]) // 2, (edge - sides[1]) // 2),
        )
        return square


Square = Judged | Shrunk


class InMemory:
    """Decoded photos one behind the other in a few large tensors, which processes share."""

    def __init__(self, most: int) -> None:
        """most: bytes that they will take at most."""
        self._most = most
        self._blocks: list[Tensor] = []
        self._used = 0
        self._places: list[tuple[int, int, int, int]] = []  # block, offset, height, width

    def __len__(self) -> int:
        return len(self._places)

    def add(self, pixels: np.ndarray, more: int) -> None:
        """pixels: (height, width, 3) uint8. more: photos that will follow."""
        size = pixels.size
        if not self._blocks or self._used + size > len(self._blocks[-1]):
            # memory that is never written is never taken
            room = size * (more + 1) if not self._blocks else max(size, 2**26)
            self._blocks.append(torch.empty(max(size, min(room, self._most)), dtype=torch.uint8))
            self._used = 0
        block = self._blocks[-1]
        block[self._used : self._used + size].numpy()[:] = pixels.reshape(-1)
        self._places.append((len(self._blocks) - 1, self._used, *pixels.shape[:2]))
        self._used += size

    def __getitem__(self, number: int) -> Tensor:
        """(3, height, width) uint8, a view."""
        block, offset, height, width = self._places[number]
        flat = self._blocks[block][offset : offset + height * width * 3]
        return flat.view(height, width, 3).permute(2, 0, 1)

    def whole(self) -> Tensor | None:
        """All as (N, 3, height, width), a view, where they have one size; else None."""
        if not self._places or len({place[2:] for place in self._places}) > 1 or len(self._blocks) > 1:
            return None
        _, _, height, width = self._places[0]
        count = len(self._places)
        return self._blocks[0][: count * height * width * 3].view(count, height, width, 3).permute(0, 3, 1, 2)


class Streamed:
    """Photos that are read and decoded each time they are asked for."""

    def __init__(self, dataset: Dataset, paths: Sequence[str], photos: Sequence[LabelledPhoto], shape: Square) -> None:
        self._dataset, self._paths, self._photos, self._shape = dataset, paths, photos, shape
        self._owner = os.getpid()

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, number: int) -> Tensor:
        """(3, height, width) uint8. Raises PhotoError."""
        if os.getpid() != self._owner and self._dataset.source is not None:
            # an open file has one place in it, which processes would move under each other
            self._dataset, self._owner = open_data(self._paths), os.getpid()
        data = self._dataset.read(self._photos[number])
        pixels = self._shape(decode(data, enough=self._shape.enough))
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)

    def in_order(self, threads: int) -> Iterator[Tensor | PhotoError]:
        """All photos, each (3, height, width) uint8, decoded by threads ahead of their use."""
        stream = decoded(self._dataset, self._photos, self._shape, threads=threads, enough=self._shape.enough)
        for _, pixels in stream:
            if isinstance(pixels, PhotoError):
                yield pixels
            else:
                yield torch.from_numpy(np.array(pixels)).permute(2, 0, 1)

    def whole(self) -> None:
        return None


Pixels = InMemory | Streamed


def load(
    dataset: Dataset,
    paths: Sequence[str],
    photos: Sequence[LabelledPhoto],
    shape: Square,
    *,
    threads: int,
    timeout: float | None = None,
    memory: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Pixels, list[tuple[LabelledPhoto, PhotoError]]]:
    """Decode all photos, and keep them where they fit into memory.

    paths: what the dataset was opened from, for other processes. shape: Judged or Shrunk. memory: bytes that they may
    take; None is half of the free memory.
    Gives the photos, without those that cannot be decoded, and these.
    """
    limit = memory if memory is not None else int(SHARE * (available() or 2**40))
    kept, bad = InMemory(limit), list[tuple[LabelledPhoto, PhotoError]]()
    good = list[LabelledPhoto]()
    looked = decoded(dataset, photos, shape, threads=threads, enough=shape.enough, timeout=timeout)
    probed, taken, fits = 0, 0, True
    done = 0

    def take(stream: Iterator[tuple[LabelledPhoto, np.ndarray | PhotoError]]) -> None:
        nonlocal probed, taken, done
        for photo, answer in stream:
            done += 1
            progress(done)
            if isinstance(answer, PhotoError):
                bad.append((photo, answer))
                continue
            good.append(photo)
            probed, taken = probed + 1, taken + answer.size
            if fits:
                kept.add(answer, len(photos) - done)

    take(islice(looked, _PROBED))
    if probed and taken / probed * len(photos) > limit:
        fits, kept = False, InMemory(0)
    take(looked)
    return (kept if fits else Streamed(dataset, paths, good, shape)), bad
