"""What is in a file of many photos, and what can be wrong with it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos.decode import check_bytes
from convnext_cli.storage.addresses import is_url


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard.

    name: with slashes, none of its parts leads upwards. data: None where problem says why; the first bytes alone where
    these and the name say that it is not a photo.
    """

    name: str
    data: bytes | None = None
    problem: PhotoError | None = None


class NoPhotosError(Exception):
    """A parquet file without a column of photos."""


def opened(path: str) -> io.BufferedIOBase:
    """A shard as a stream. Raises PhotoError."""
    if is_url(path):
        from convnext_cli.storage.reading import stream

        return stream(path)
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise PhotoError("missing", "there is no such file") from None
    except PermissionError:
        raise PhotoError("permission", "it may not be read by this user") from None
    except (OSError, ValueError) as error:
        raise PhotoError("corrupt", f"it cannot be read: {error}") from None


def checked(name: str, size: int, data: bytes | None) -> Member:
    """A member with its bytes, or with what is wrong with them. size: in bytes."""
    try:
        check_bytes(size)
    except PhotoError as problem:
        return Member(name, problem=problem)
    return Member(name, data) if data else Member(name, problem=PhotoError("empty", "the file is empty"))


def broken(error: Exception, where: str) -> PhotoError:
    """Why a shard cannot be read further. where: as in "after a.jpg"."""
    if isinstance(error, PhotoError):
        return error
    from convnext_cli.storage.failures import photo_error

    found = photo_error(error)
    return cut(where) if found.kind in ("corrupt", "empty") else PhotoError(found.kind, f"{found.message}, {where}")


def cut(where: str) -> PhotoError:
    """What is wrong with a shard that does not go on. where: as in "after a.jpg"."""
    return PhotoError("corrupt", f"the shard is cut or damaged {where}; what follows is lost")
