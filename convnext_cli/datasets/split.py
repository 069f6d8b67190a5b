"""Splits data that has no splits: stratified by class, no photo in two splits, and the same on every machine."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from convnext_cli.base.errors import PhotoError
from convnext_cli.datasets.labelled import Dataset, LabelledPhoto

_BYTES = 16  # of a digest: no two of a billion files have the same by chance


def digests(dataset: Dataset, photos: Iterable[LabelledPhoto]) -> Iterator[bytes]:
    """A digest of each photo: BLAKE2b of its bytes, or of its name if it cannot be read."""
    for photo in photos:
        try:
            data = dataset.read(photo)
        except PhotoError:
            data = os.fsencode(f"\0{photo.label}/{Path(photo.path).name}")
        yield blake2b(data, digest_size=_BYTES).digest()


def stratified(
    photos: Sequence[LabelledPhoto], digests: Sequence[bytes], shares: Mapping[str, float], seed: int = 0
) -> list[str]:
    """Split photos into "train" and the splits in ``shares``.

    Photos of the same digest, whatever their labels, stay together. A class of two or more different photos has one in
    "train" and one in the first of ``shares``, of three or more in the second too. Neither the order of the photos nor
    their paths matter.

    Raises:
        ValueError: the shares are not parts of 1.
    """
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ValueError(f"shares must be above 0, and their sum below 1, not {dict(shares)}")
    alike: defaultdict[bytes, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        alike[digest].append(place)
    room = _room(photos, alike.values(), shares)
    key = seed.to_bytes(8, "little", signed=True)
    splits = ["train"] * len(photos)
    for digest in sorted(alike, key=lambda digest: blake2b(digest, key=key).digest()):
        labels = Counter(photos[place].label for place in alike[digest])
        for split in shares:
            if all(room[label, split] >= count for label, count in labels.items()):
                for label, count in labels.items():
                    room[label, split] -= count
                for place in alike[digest]:
                    splits[place] = split
                break
    return splits


def _room(
    photos: Sequence[LabelledPhoto], alike: Iterable[Sequence[int]], shares: Mapping[str, float]
) -> dict[tuple[str | None, str], int]:
    """How many photos of each class go into each split; 0 for photos without a class."""
    counts = Counter(photo.label for photo in photos)
    different = Counter(label for places in alike for label in {photos[place].label for place in places})
    room = {}
    for label, count in counts.items():
        free = different[label] - 1 if label is not None else 0  # one stays in train
        for split, share in shares.items():
            room[label, split] = min(max(1, int(share * count + 0.5)), free)
            free -= room[label, split]
    return room
