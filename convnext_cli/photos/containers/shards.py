"""Files that hold many photos, read as folders of them: tar shards (WebDataset), parquet files (Hugging Face), zips.

They are read from front to back, on this machine or from a store, and never unpacked. Photos after a damaged place are
lost, and one failed row with the shard's name reports it.
"""

from __future__ import annotations

from collections.abc import Iterator

from convnext_cli.photos.containers.member import Member
from convnext_cli.storage.addresses import suffix

SHARD_SUFFIXES = frozenset({".tar", ".parquet"})


def is_shard(path: str) -> bool:
    """Whether this is a shard, by its name."""
    return suffix(path) in SHARD_SUFFIXES


def is_container(path: str) -> bool:
    """Whether this holds photos, by its name: a shard, or a zip, which is opened only if the user names it."""
    return is_shard(path) or suffix(path) == ".zip"


def members(path: str) -> Iterator[Member]:
    """The files in a shard, in its order.

    Args:
        path: a path or a URL.

    Raises:
        PhotoError: the shard is damaged; raised when the damaged place is reached.
        NoPhotosError: a parquet file has no column of photos.
        UnavailableError: pyarrow is missing, for a parquet file.
    """
    if suffix(path) == ".parquet":
        from convnext_cli.photos.containers import parquet

        return parquet.members(path)
    if suffix(path) == ".zip":
        from convnext_cli.photos.containers import zip_files

        return zip_files.members(path)
    from convnext_cli.photos.containers import tar

    return tar.members(path)
