"""Large photos are decoded one at a time, and Pillow's memory is reused."""

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
# Bytes of Pillow's memory blocks, and how many of them are kept for the next photo.
_BLOCK, _LARGE_BLOCK, _KEPT_BLOCKS = 2**20, 64 * 2**20, 64


@functools.cache
def set_blocks() -> bool:
    """Make Pillow allocate memory in small blocks, which are reused; False where the user has set the blocks' size.

    With blocks of the usual 16 MiB or more, the system has to clear fresh memory for each photo: for 12 megapixels in
    two threads that was a third of the time (benchmarks/blocks.py).
    """
    if any(name in os.environ for name in ("PILLOW_BLOCK_SIZE", "PILLOW_BLOCKS_MAX")):
        return False
    from PIL import _imaging

    _imaging.set_block_size(_BLOCK)
    _imaging.set_blocks_max(_KEPT_BLOCKS)
    return True


@contextlib.contextmanager
def one_at_a_time(pixels: int) -> Iterator[None]:
    """Hold a lock while a large photo is decoded; do nothing for others.

    The memory of large photos comes in large blocks, which return to the system as soon as they are free; small blocks
    would stay with the C library's allocator.
    """
    if pixels <= ONE_AT_A_TIME:
        yield
        return
    with held(_LargePlace()):
        yield


class _LargePlace:
    """The single place for large photos; its holder gets Pillow's large blocks."""

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
