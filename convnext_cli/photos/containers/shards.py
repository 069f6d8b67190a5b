"""Files that hold many photos, read as folders of them: tar shards (WebDataset), parquet files (Hugging Face), zips.

They are read from front to back, here or from a store, and never unpacked. What is behind a damaged place is lost, and
one row says so under the shard's name.
"""

from __future__ import annotations

from collections.abc import Iterator

from convnext_cli.photos.containers.member import Member
from convnext_cli.storage.addresses import suffix

SHARD_SUFFIXES = frozenset({".tar", ".parquet"})


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
        from convnext_cli.photos.containers import parquet

        return parquet.members(path)
    if suffix(path) == ".zip":
        from convnext_cli.photos.containers import zip_files

        return zip_files.members(path)
    from convnext_cli.photos.containers import tar

    return tar.members(path)
