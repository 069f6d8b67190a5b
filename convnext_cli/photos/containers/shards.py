"""Files that hold many photos, read as folders of them: tar shards (WebDataset), parquet files (Hugging Face), zips.

They are read from front to back, here or from a store, and never unpacked. What is behind a damaged place is lost, and
one row says so under the shard's name.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos.decode import check_bytes
from convnext_cli.storage.addresses import is_url, suffix

SHARD_SUFFIXES = frozenset({".tar", ".parquet"})


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


def is_shard(path: str) -> bool:
    """Whether its name says that this is a shard."""
    return suffix(path) in SHARD_SUFFIXES


def is_container(path: str) -> bool:
    """Whether its name says that this holds photos: a shard, or a zip, which is opened only where it is named."""
    return is_shard(path) or suffix(path) == ".zip"


def members(path: str) -> Iterator[Member]:
    """The files in a shard, in its order. A path's or URL's.

    Raises PhotoError for what is wrong with the shard itself, when it comes to that; NoPhotosError; UnavailableError
    for parquet without pyarrow.
    """
    if suffix(path) == ".parquet":
        from convnext_cli.photos.containers.parquet import members as of_parquet

        return of_parquet(path)
    if suffix(path) == ".zip":
        from convnext_cli.photos.containers.zip_files import members as of_zip

        return of_zip(path)
    from convnext_cli.photos.containers.tar import members as of_tar

    return of_tar(path)


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
