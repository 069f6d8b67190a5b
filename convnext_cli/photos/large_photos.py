"""Large photos are decoded one at a time, and Pillow's memory is used again."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

from convnext_cli.base.threads import held

# Photos above this many pixels are decoded one at a time, which keeps two threads within 2 GB.
ONE_AT_A_TIME = 24_000_000

_one_large = threading.Lock()
# Pillow's memory comes in blocks, in bytes; so many of them are kept for the next photo.
_BLOCK, _LARGE_BLOCK, _KEPT_BLOCKS = 2**20, 64 * 2**20, 64


@functools.cache
def set_blocks() -> bool:
    """Have Pillow ask for memory in small blocks that are used again; whether that is ours to say.

    In blocks of its usual 16 MiB, or larger, each photo begins with memory that the system has to clear anew: for 12
    megapixels in two threads that made a third of the time (benchmarks/blocks.py).
    """
    if any(name in os.environ for name in ("PILLOW_BLOCK_SIZE", "PILLOW_BLOCKS_MAX")):
        return False
    from PIL import _imaging

    _imaging.set_block_size(_BLOCK)
    _imaging.set_blocks_max(_KEPT_BLOCKS)
    return True


@contextlib.contextmanager
def one_at_a_time(pixels: int) -> Iterator[None]:
    """A lock for large photos, nothing for others.

    The memory of large ones comes in blocks that the system takes back as soon as they are free; small ones would stay
    with the C library's allocator.
    """
    if pixels <= ONE_AT_A_TIME:
        yield
        return
    with held(_LargePlace()):
        yield


class _LargePlace:
    """The one place for large photos, and Pillow's large blocks for whoever holds it."""

    def acquire(self) -> None:
        _one_large.acquire()
        _use_blocks(_LARGE_BLOCK)

    def release(self) -> None:
        _use_blocks(_BLOCK)
        _one_large.release()


def _use_blocks(size: int) -> None:
    if set_blocks():
        from PIL import _imaging

        _imaging.set_block_size(size)
