"""Parts: the result of a cluster's job, a folder of parquet files, here or in a store.

    part-<job>-<block>.parquet      the rows of a block
    rest-<job>-<block>.parquet      rows of photos that are there no more
    _manifest.json                  when all is done: which files count, and what made them

Readers of parquet folders pass over names that begin with an underscore. Each file appears whole or not at all, under a
name that says what is in it: two runs at once, or one after another was killed, write the same files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import IO, TYPE_CHECKING, TypedDict

from convnext_cli.base.errors import ConvNextError, OutputError, UsageError
from convnext_cli.base.text import JsonObject, json_value
from convnext_cli.jobs.cluster.target import open_target
from convnext_cli.storage.addresses import scrub
from convnext_cli.storage.listing import overlapped

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "_manifest.json"
_NAME = re.compile(r"(part|rest)-([0-9a-f]{8})-([0-9a-f]{20})\.parquet")
_FOOTER = b"convnext"
GROUP = 1024  # rows of a row group, as the parquet of one machine has them


@dataclass(frozen=True)
class Name:
    """Of a file. kind: part or rest. job: which settings made it. block: what is in it."""

    kind: str
    job: str
    block: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.job}-{self.block}.parquet"


@dataclass(frozen=True)
class Footer:
    """The description of a file, inside it.

    Args:
        made_with: source and settings.
        rows: how many there are.
        statuses, failures: rows of each kind.
    """

    made_with: JsonObject
    rows: int
    statuses: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)


class PartOfManifest(TypedDict):
    """A file that counts."""

    name: str
    rows: int


class Manifest(TypedDict):
    """The JSON of ``_manifest.json``."""

    convnext: str
    made_with: JsonObject
    rows: int
    statuses: dict[str, int]
    failures: dict[str, int]
    parts: list[PartOfManifest]


class Parts:
    """target: a folder's path or URL, made when the first file is written.

    Raises UsageError for URLs that nothing can be written to, and OutputError when writing fails, as all methods do.
    """

    def __init__(self, target: str) -> None:
        self.target = target.rstrip("/") or "/"
        self._files = open_target(self.target)

    def names(self) -> set[Name]:
        """The files that are there."""
        matches = (_NAME.fullmatch(name) for name in self._files.names())
        return {Name(*match.groups()) for match in matches if match}

    def check(self) -> None:
        """Raises UsageError when something else is there, hidden files and those with an underscore left out, and
        OutputError when nothing can be written."""
        others = [name for name in self._files.names() if not (_NAME.fullmatch(name) or name[:1] in "._")]
        if others:
            raise UsageError(
                f"{scrub(self.target)} holds {min(others)}, but must hold nothing except the result",
                "name a new folder with -o",
            )
        self._files.prove()

    def write(self, name: Name, table: pa.Table, made_with: JsonObject) -> Footer:
        """Write rows under a name, in the place of an older file."""
        import pyarrow.parquet as pq

        footer = Footer(made_with, len(table), counts(table["status"]), counts(_kinds(table)))
        stream = BytesIO()
        table = table.replace_schema_metadata({_FOOTER: json.dumps(asdict(footer))})
        pq.write_table(table, stream, row_group_size=GROUP)
        self._files.write(str(name), stream.getvalue())
        return footer

    def read(self, name: Name, columns: list[str] | None = None) -> pa.Table:
        """The rows of a file. Raises OutputError when it cannot be read."""
        import pyarrow.parquet as pq

        with self._reading(name) as stream:
            return pq.ParquetFile(stream).read(columns=columns)

    def footers(self, names: Iterable[Name]) -> Iterator[tuple[Name, Footer]]:
        """The footers of files, which are read side by side."""

        def read(name: Name) -> tuple[Name, Footer]:
            import pyarrow.parquet as pq

            with self._reading(name) as stream:
                return name, Footer(**json_value(pq.ParquetFile(stream).schema_arrow.metadata[_FOOTER]))

        yield from overlapped(read, names, lambda _: True)

    @contextmanager
    def _reading(self, name: Name) -> Iterator[IO[bytes]]:
        try:
            with self._files.opened(str(name)) as stream:
                yield stream
        except ConvNextError:
            raise
        except Exception as error:  # of whatever library the store has, or of pyarrow
            raise OutputError(
                f"{scrub(self.target)}/{name} cannot be read: {scrub(str(error))}",
                "if it is damaged, remove it, and run the same command again",
            ) from error

    def remove(self, names: Iterable[Name]) -> None:
        """Remove files; those that are already gone are ignored."""
        self._files.remove([str(name) for name in names])

    def write_manifest(self, values: Manifest) -> None:
        self._files.write(MANIFEST, json.dumps(values, indent=1).encode() + b"\n")

    def remove_manifest(self) -> None:
        self._files.remove([MANIFEST])

    def tidy(self) -> None:
        """Take away what a killed run left half written."""
        self._files.tidy()


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value of a column occurs, without nulls."""
    numbers = {pair["values"]: pair["counts"] for pair in column.value_counts().to_pylist()}
    return {str(value): number for value, number in sorted(numbers.items(), key=str) if value is not None}


def _kinds(table: pa.Table) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.struct_field(table["error"], "kind")
