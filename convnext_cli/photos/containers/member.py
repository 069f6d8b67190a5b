"""The files in a shard, and the errors that a shard can have."""

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

    Args:
        name: its path in the shard, with slashes, and without parts that lead upwards.
        data: its bytes; only the first of them if these and the name show that it is not a photo; None if there is a
            problem.
        problem: why it cannot be read.
    """

    name: str
    data: bytes | None = None
    problem: PhotoError | None = None


class NoPhotosError(Exception):
    """A parquet file without a column of photos."""


def opened(path: str) -> io.BufferedIOBase:
    """Open a shard as a stream.

    Raises:
        PhotoError: the shard cannot be read.
    """
    if is_url(path):
        from convnext_cli.storage.reading import stream

        return stream(path)
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise PhotoError("missing", "there is no such file") from None
    except PermissionError:
        raise PhotoError("permission", "this user has no permission to read it") from None
    except (OSError, ValueError) as error:
        raise PhotoError("corrupt", f"it cannot be read: {error}") from None


def checked(name: str, size: int, data: bytes | None) -> Member:
    """A member with its bytes, or with the problem that they have.

    Args:
        name: of the member.
        size: in bytes.
        data: its bytes; None if they were not read.
    """
    try:
        check_bytes(size)
    except PhotoError as problem:
        return Member(name, problem=problem)
    return Member(name, data) if data else Member(name, problem=PhotoError("empty", "the file is empty"))


def broken(error: Exception, where: str) -> PhotoError:
    """Why a shard cannot be read further.

    Args:
        error: the error of the disk or of a library.
        where: for the message, such as "after a.jpg".
    """
    if isinstance(error, PhotoError):
        return error
    from convnext_cli.storage.failures import photo_error

    problem = photo_error(error)
    return (
        cut(where) if problem.kind in ("corrupt", "empty") else PhotoError(problem.kind, f"{problem.message}, {where}")
    )


def cut(where: str) -> PhotoError:
    """The error of a shard that ends too early.

    Args:
        where: for the message, such as "after a.jpg".
    """
    return PhotoError("corrupt", f"the shard is truncated or damaged {where}; the photos that follow are lost")
