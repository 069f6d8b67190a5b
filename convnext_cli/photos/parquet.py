"""Hugging Face's image parquet files: where the photos are in them, and these from front to back.

A photo is a struct of ``bytes`` and ``path``, or plain bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from convnext_cli.errors import PhotoError, UnavailableError
from convnext_cli.photos.shards import Member, NoPhotosError, broken, checked, cut, opened

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

IMAGES = ("image", "img", "photo", "picture")
_BATCH = 16  # photos that are taken out of a row group at once


def members(path: str) -> Iterator[Member]:
    """See ``shards.members``; a photo is called by the number of its row, and by its own name where it has one."""
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
                for batch in file.iter_batches(_BATCH, columns=[image]):
                    for cell in batch.column(0):
                        yield _member(row, cell.as_py())
                        row += 1
        except (NoPhotosError, PhotoError):
            raise
        except Exception as error:  # of the disk, of pyarrow, or of the store's library
            where = f"after row {row - 1}" if row else "at its beginning or its end"
            raise (cut(where) if isinstance(error, ArrowException | EOFError) else broken(error, where)) from None


def _member(row: int, cell: Any) -> Member:
    data, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    return checked(f"{row}/{PurePosixPath(name).name}" if name else f"{row}", len(data or b""), data)


def image_column(file: ParquetFile) -> str | None:
    """The column that holds bytes of photos, or None."""
    import pyarrow as pa

    schema = file.schema_arrow
    known = features(file)
    named = [name for name, kind in known.items() if kind.get("_type") == "Image"]
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
    """What Hugging Face's metadata say of each column; empty without them."""
    try:
        found = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: kind for name, kind in found.items() if isinstance(kind, dict)} if isinstance(found, dict) else {}
