"""Hugging Face's image parquet files: finding the column of photos, and reading it from front to back.

A photo is a struct of ``bytes`` and ``path``, or plain bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from convnext_cli.base.errors import PhotoError, UnavailableError
from convnext_cli.base.text import json_value
from convnext_cli.photos.containers.member import Member, NoPhotosError, broken, checked, cut, opened

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

IMAGES = ("image", "img", "photo", "picture")
_AT_ONCE = 16, 16 * 2**20  # photos that are read from a row group at once, and about how many bytes
# A column of more bytes that expands by more than this factor does not hold photos: these hardly shrink.
_MUCH, _FACTOR = 32 * 2**20, 100


def members(path: str) -> Iterator[Member]:
    """See ``shards.members``. A photo is named by the number of its row, followed by its own name if it has one."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UnavailableError("reading parquet needs pyarrow", "pip install pyarrow") from error
    with opened(path) as stream:
        row = 0
        try:
            with ParquetFile(stream) as file:
                image = image_column(file)
                if image is None:
                    raise NoPhotosError
                for group in range(file.num_row_groups):
                    longest = check_expansion(file, group, image)
                    for batch in file.iter_batches(_rows(file, group, image), row_groups=[group], columns=[image]):
                        for cell in batch.column(0):
                            member = _member(row, cell.as_py())
                            if len(member.data or b"") > longest:
                                raise EOFError("a photo is longer than its column")
                            yield member
                            row += 1
        except (NoPhotosError, PhotoError):
            raise
        except Exception as error:  # of the disk, of pyarrow, or of the store's library
            where = f"after row {row - 1}" if row else "at its beginning or its end"
            raise (cut(where) if isinstance(error, ArrowException | EOFError) else broken(error, where)) from None


def _member(row: int, cell: Any) -> Member:
    data, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    return checked(f"{row}/{PurePosixPath(name).name}" if name else f"{row}", len(data or b""), data)


def check_expansion(file: ParquetFile, group: int, column: str) -> int:
    """The bytes of a column in a row group: no value in it can be longer.

    Raises:
        PhotoError: the column expands so much that it cannot hold photos or text.
    """
    parts = list(_parts(file, group, column))
    size = int(sum(part.total_uncompressed_size for part in parts))
    packed = int(sum(part.total_compressed_size for part in parts))
    if size > _MUCH and size > _FACTOR * packed:
        expands = f"expands from {packed:,} bytes to {size / 2**20:,.0f} MiB, as photos never do"
        raise PhotoError("too_large", f"its column {column} {expands}")
    return size


def with_dictionaries(source: Any, file: ParquetFile, columns: Iterable[str]) -> ParquetFile:
    """Open a file again, and read these columns as dictionaries: a value that many rows share is stored once.

    Args:
        source: the path or stream of the file.
        file: the open file.
        columns: names of columns.
    """
    from pyarrow.parquet import ParquetFile

    return ParquetFile(source, metadata=file.metadata, read_dictionary=list(columns))


def values(column: Any) -> list[Any]:
    """An Arrow column as a list; rows that share a value of a dictionary share the object."""
    import pyarrow as pa

    cells: list[Any] = []
    for chunk in getattr(column, "chunks", (column,)):
        if pa.types.is_dictionary(chunk.type):
            dictionary = chunk.dictionary.to_pylist()
            cells += [None if place is None else dictionary[place] for place in chunk.indices.to_pylist()]
        else:
            cells += chunk.to_pylist()
    return cells


def _rows(file: ParquetFile, group: int, column: str) -> int:
    """How many photos to read at once; one where a value in a dictionary may be shared by any number of rows."""
    most, much = _AT_ONCE
    parts = list(_parts(file, group, column))
    if any(part.has_dictionary_page for part in parts):
        return 1
    size = int(sum(part.total_uncompressed_size for part in parts)) // max(1, file.metadata.row_group(group).num_rows)
    return int(max(1, min(most, much // max(1, size))))


def _parts(file: ParquetFile, group: int, column: str) -> Iterator[Any]:
    """A row group's metadata for a column and for the columns inside it."""
    metadata = file.metadata.row_group(group)
    for number in range(metadata.num_columns):
        part = metadata.column(number)
        if part.path_in_schema == column or part.path_in_schema.startswith(f"{column}."):
            yield part


def image_column(file: ParquetFile) -> str | None:
    """The column that holds bytes of photos, or None."""
    import pyarrow as pa

    schema = file.schema_arrow
    described = features(file)
    named = [name for name, kind in described.items() if kind.get("_type") == "Image"]
    for name in (*named, *IMAGES):
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind):
            kind = next((inner.type for inner in kind if inner.name == "bytes"), None)
        if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            return str(name)
    return None


def features(file: ParquetFile) -> dict[str, dict[str, Any]]:
    """Hugging Face's metadata of each column; empty without them."""
    try:
        feature_types = json_value((file.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return (
        {name: kind for name, kind in feature_types.items() if isinstance(kind, dict)}
        if isinstance(feature_types, dict)
        else {}
    )
