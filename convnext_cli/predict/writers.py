"""Writers of rows as json, jsonl, csv, tsv and parquet, one class for each format. ``cli/`` draws tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from convnext_cli.base.errors import UnavailableError
from convnext_cli.base.tables import csv_line
from convnext_cli.predict.rows import Row, to_json

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Columns:
    """What the rows of a flat format have columns for.

    Args:
        k: predictions.
        answer: whether rows have an answer (``--sure``).
        labels: whether rows have a set of labels (``--sets``).
    """

    k: int
    answer: bool = False
    labels: bool = False


class Writer(Protocol):
    """Writes rows in one format. ``close`` completes the document, even when the run ends early."""

    def write(self, row: Row) -> None: ...
    def close(self) -> None: ...


class JsonlWriter:
    """One JSON object a line."""

    def __init__(self, stream: IO[bytes], columns: Columns) -> None:
        self._stream = stream

    def write(self, row: Row) -> None:
        self._stream.write(to_json(row).encode() + b"\n")

    def close(self) -> None:
        self._stream.flush()


class JsonWriter:
    """One JSON array, written as it grows."""

    def __init__(self, stream: IO[bytes], columns: Columns) -> None:
        self._stream = stream
        self._before = b"[\n "

    def write(self, row: Row) -> None:
        self._stream.write(self._before + to_json(row).encode())
        self._before = b",\n "

    def close(self) -> None:
        self._stream.write(b"[]\n" if self._before.startswith(b"[") else b"\n]\n")
        self._stream.flush()


class CsvWriter:
    """A header, then one line for each photo with k predictions. UTF-8; other bytes of a path as ``\\udcXX``."""

    delimiter = ","

    def __init__(self, stream: IO[bytes], columns: Columns) -> None:
        self._stream = stream
        self._columns = columns
        header = ["path", "status", "width", "height"]
        for rank in range(1, columns.k + 1):
            header += [f"{name}{'' if rank == 1 else f'_{rank}'}" for name in ("index", "id", "label", "score")]
        if columns.answer:
            header += ["answer", "answer_id", "answer_score", "answer_level", "answer_why"]
        if columns.labels:
            header += ["set", "coverage"]
        self._line([*header, "model", "model_sha256", "error_kind", "error_message"])

    def _line(self, cells: list[object]) -> None:
        self._stream.write(csv_line(cells, self.delimiter).encode("utf-8", "backslashreplace"))

    def write(self, row: Row) -> None:
        cells: list[object] = [row.path, row.status, row.width, row.height]
        for p in row.predictions:
            cells += [p.index, p.id, p.label, p.score]
        cells += [None] * (4 * (self._columns.k - len(row.predictions)))
        if self._columns.answer:
            answer = row.answer
            cells += [None] * 5 if answer is None else list(answer.to_json().values())
        if self._columns.labels:
            names = row.prediction_set
            cells += [None] * 2 if names is None else [json.dumps(names.labels, ensure_ascii=False), names.coverage]
        error = row.error
        self._line([*cells, row.model, row.model_sha256, error and error.kind, error and error.message])

    def close(self) -> None:
        self._stream.flush()


class TsvWriter(CsvWriter):
    """Like CSV, with tabs."""

    delimiter = "\t"


class ParquetWriter:
    """Apache Parquet with the columns of the JSON row, predictions as a list of structs; row groups of 1,024."""

    GROUP = 1024

    def __init__(self, stream: IO[bytes], columns: Columns) -> None:
        schema = arrow_schema(columns)
        import pyarrow.parquet as pq

        self._columns = columns
        self._writer = pq.ParquetWriter(stream, schema)
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == self.GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(arrow_table(self._rows, self._columns))
        self._rows = []

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def arrow_schema(columns: Columns = Columns(0)) -> pa.Schema:
    """The Arrow schema of rows, whatever their number of predictions.

    Raises:
        UnavailableError: pyarrow is missing.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UnavailableError("writing parquet needs pyarrow", "pip install pyarrow") from error
    prediction = pa.struct(
        [
            ("rank", pa.int32()),
            ("index", pa.int32()),
            ("id", pa.string()),
            ("label", pa.string()),
            ("score", pa.float32()),
        ]
    )
    answer = pa.struct(
        [
            ("label", pa.string()),
            ("id", pa.string()),
            ("score", pa.float32()),
            ("level", pa.string()),
            ("why", pa.string()),
        ]
    )
    return pa.schema(
        [
            ("path", pa.string()),
            ("path_bytes", pa.binary()),
            ("status", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("predictions", pa.list_(prediction)),
            *([("answer", answer)] if columns.answer else []),
            *([("set", pa.list_(pa.string())), ("coverage", pa.float32())] if columns.labels else []),
            ("model", pa.string()),
            ("model_sha256", pa.string()),
            ("error", pa.struct([("kind", pa.string()), ("message", pa.string())])),
        ]
    )


def arrow_table(rows: Sequence[Row], columns: Columns = Columns(0)) -> pa.Table:
    """Rows as an Arrow table.

    Raises:
        UnavailableError: pyarrow is missing.
    """
    schema = arrow_schema(columns)
    import pyarrow as pa

    records = []
    for row in rows:
        values = row.to_dict()
        if "path_bytes" in values:
            values["path_bytes"] = row.path.encode("utf-8", "surrogateescape")
            values["path"] = row.path.encode("utf-8", "backslashreplace").decode()
        records.append(values)
    return pa.Table.from_pylist(records, schema=schema)


@dataclass(frozen=True)
class Format:
    """A format of files of rows.

    Args:
        name: the value of ``-f``.
        writer: called with an open file, and what flat formats have columns for.
        suffixes: of its files, in lower case with the dot.
    """

    name: str
    writer: Callable[[IO[bytes], Columns], Writer]
    suffixes: tuple[str, ...]


# A new format is a class above, and a line here.
_ALL = (
    Format("json", JsonWriter, (".json",)),
    Format("jsonl", JsonlWriter, (".jsonl", ".ndjson")),
    Format("csv", CsvWriter, (".csv",)),
    Format("tsv", TsvWriter, (".tsv",)),
    Format("parquet", ParquetWriter, (".parquet",)),
)
FORMATS = {form.name: form for form in _ALL}
JOB_FORMATS = (*FORMATS, "sqlite")  # the output of a durable job can be its own database


def format_by_suffix(suffix: str) -> str | None:
    """The name of the format with a suffix, whatever its case; None for an unknown suffix."""
    return next((form.name for form in _ALL if suffix.lower() in form.suffixes), None)
