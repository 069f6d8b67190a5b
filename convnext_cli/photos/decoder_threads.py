"""Threads of the decoders that start their own: libheif, which decodes HEIC, and the AV1 decoder of AVIF."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from threading import Lock

_lock = Lock()
_active = 0


@contextlib.contextmanager
def shared_threads(name: str, threads: int) -> Iterator[None]:
    """Let the decoder of one photo start the threads that the photos decoded beside it leave.

    Left alone, pillow-heif takes four and Pillow's AVIF decoder all processors, for each photo.

    Args:
        name: the format, as ``formats.sniff`` gives it; those of other decoders are left alone.
        threads: for all photos that are decoded at once.
    """
    if name not in ("heic", "avif"):
        yield
        return
    global _active
    with _lock:
        _active += 1
        share = max(1, threads // _active)
    try:
        with contextlib.suppress(ImportError):  # which opening the photo reports
            if name == "heic":
                from pillow_heif import options

                options.DECODE_THREADS = share
            else:
                from PIL import AvifImagePlugin

                AvifImagePlugin.DEFAULT_MAX_THREADS = share
        yield
    finally:
        with _lock:
            _active -= 1
