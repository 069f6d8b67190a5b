"""Reading of objects. Safe to call from many threads; none of them holds a processor while it waits."""

from __future__ import annotations

import io
from functools import partial

from convnext_cli.base.errors import PhotoError, UnavailableError, UsageError
from convnext_cli.storage import retry
from convnext_cli.storage.failures import command_error, is_past_end, photo_error
from convnext_cli.storage.filesystems import Place, locate
from convnext_cli.storage.listing import Seen, look
from convnext_cli.storage.ranges import opened


def read(url: str, most: int) -> bytes:
    """The first bytes of an object, with retries.

    Args:
        url: of the object.
        most: how many bytes to read at most.

    Raises:
        PhotoError: missing, permission, timeout (throttled or cut off each time), corrupt.
        UnavailableError: a library is missing.
    """
    try:
        place = _located(url)
        return bytes(retry.patience(partial(place.fs.cat_file, place.path, start=0, end=most)))
    except (PhotoError, UnavailableError):
        raise
    except Exception as error:
        if is_past_end(error):  # an empty object has no first byte
            return b""
        raise photo_error(error) from None


def stream(url: str) -> io.BufferedReader:
    """Open an object as a seekable stream.

    Raises:
        PhotoError: the object cannot be read.
        UnavailableError: a library is missing.
    """
    try:
        place = _located(url)
        return opened(place.fs, place.path)
    except (PhotoError, UnavailableError):
        raise
    except Exception as error:
        raise photo_error(error) from None


def state(url: str) -> Seen | None:
    """The present state of an object; None for a folder, or where it cannot be read: reading it will report why."""
    try:
        item = look(locate(url))
    except UnavailableError:
        raise
    except Exception:
        return None
    return None if item is None else item.seen


def _located(url: str) -> Place:
    try:
        return locate(url)
    except UsageError as error:
        raise PhotoError("missing", error.message) from None


def opened_file(url: str) -> io.BufferedReader:
    """Open an object that a command cannot do without as a seekable stream.

    Raises:
        ConvNextError: the object cannot be opened.
    """
    place = locate(url)
    try:
        return opened(place.fs, place.path)
    except Exception as error:
        raise command_error(error, url) from error
