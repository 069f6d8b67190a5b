"""Rows of photos that are there no more: they are kept, as ``vanished``, as a job on one machine keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from convnext_cli.jobs.cluster.parts import Name, Parts
from convnext_cli.jobs.photo_state import key_of
from convnext_cli.photos.containers.shards import is_container
from convnext_cli.predict.writers import Columns, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

Reach = tuple[bytes, bytes]


def gone(
    parts: Parts,
    old: Iterable[Name],
    current: dict[Name, Reach],
    closed: Iterable[bytes],
    stays: Callable[[str], bool],
    job: str,
    columns: Columns,
) -> tuple[Name | None, pa.Table]:
    """What of old files is in none of the current ones, and the name of a file for it; None for nothing.

    current: from which key to which each reaches. closed: keys of what could not be looked into: rows of photos below
    stay as they are. stays: whether the row of a path does so too. columns: of the file. Raises OutputError.
    """
    import pyarrow as pa

    blocks = {name.block for name in current}
    # the same photos, that other settings labelled: all of them are current
    old = sorted(
        (name for name in old if name.kind == "rest" or name.block not in blocks),
        key=lambda name: (name.job != job, name.kind == "rest", str(name)),
    )
    shut = [key + b"\0" for key in closed]

    @lru_cache(maxsize=16)
    def keys(name: Name) -> frozenset[bytes]:
        table = parts.read(name, ["path", "path_bytes", "status"])
        for path, status in zip(_paths(table), table["status"].to_pylist(), strict=True):
            if status == "failed" and is_container(path):
                shut.append(key_of(path) + b"\0")
        return frozenset(key_of(path) for path in _paths(table))

    kept, taken = [], set[bytes]()  # a run that was cut may have left a photo in several files
    for name in old:
        table = _conformed(parts.read(name), columns)
        own = [key_of(path) for path in _paths(table)]
        if not own:
            continue
        low, high = min(own), max(own)
        here = frozenset[bytes]().union(*(keys(at) for at, (a, b) in current.items() if a <= high and low <= b))
        table = table.filter(pa.array([key not in here and key not in taken for key in own]))
        taken.update(own)
        kept.append(_marked(table, lambda path: stays(path) or key_of(path).startswith(tuple(shut))))
    table = pa.concat_tables(kept) if kept else None
    if not table:
        return None, None
    table = table.sort_by("path")
    digest = blake2b("\n".join(map(str, table.to_pylist())).encode("utf-8", "backslashreplace"), digest_size=10)
    return Name("rest", job, digest.hexdigest()), table


def _conformed(table: pa.Table, columns: Columns) -> pa.Table:
    """The rows with these columns and no others: those of other settings may have answers, or lack them."""
    import pyarrow as pa

    schema = arrow_schema(columns)
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names)


def _paths(table: pa.Table) -> list[str]:
    return [
        path if raw is None else raw.decode("utf-8", "surrogateescape")
        for path, raw in zip(table["path"].to_pylist(), table["path_bytes"].to_pylist(), strict=True)
    ]


def _marked(table: pa.Table, stays: Callable[[str], bool]) -> pa.Table:
    """Rows as vanished, unless they stay as they are."""
    import pyarrow as pa

    statuses: list[str] = [
        status if stays(path) else "vanished"
        for path, status in zip(_paths(table), table["status"].to_pylist(), strict=True)
    ]
    return table.set_column(table.column_names.index("status"), "status", pa.array(statuses, pa.string()))
