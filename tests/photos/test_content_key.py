"""The key of a photo's bytes."""

from __future__ import annotations

import random

from convnext_cli.photos.content_key import content_key

PHOTO = random.Random(0).randbytes(300_000)


def test_the_same_bytes_have_the_same_key() -> None:
    assert content_key(PHOTO) == content_key(bytes(PHOTO)) and len(content_key(PHOTO)) == 32


def test_size_and_both_ends_count() -> None:
    first, last = bytes([PHOTO[0] ^ 1]) + PHOTO[1:], PHOTO[:-1] + bytes([PHOTO[-1] ^ 1])
    longer = PHOTO[:100_000] + b"\0" + PHOTO[100_000:]  # same ends, other size
    keys = {content_key(data) for data in (PHOTO, first, last, longer, b"", b"\0", PHOTO[:10], PHOTO[:70_000])}
    assert len(keys) == 8


def test_every_byte_of_a_small_photo_counts() -> None:
    small = PHOTO[:120_000]
    for place in (0, 60_000, 65_535, 65_536, 119_999):
        changed = bytearray(small)
        changed[place] ^= 1
        assert content_key(bytes(changed)) != content_key(small)
