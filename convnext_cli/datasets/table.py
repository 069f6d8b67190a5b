"""A table of paths and labels: CSV, TSV or parquet, with or without a column for the split."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError, PhotoError
from convnext_cli.datasets.labelled import Dataset, LabelledPhoto, sorted_classes, split_of, without_contradictions
from convnext_cli.photos.containers.parquet import check_expansion, values, with_dictionaries
from convnext_cli.photos.decode import IMAGE_SUFFIXES
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.reading import opened_file

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

# Names of columns; the first that exists counts.
PATHS = ("path", "file_name", "filename", "file", "filepath", "file_path", "image_path", "image", "img", "photo")
LABELS = ("label", "class", "class_name", "category", "target", "wnid", "synset", "name")
_SPLITS = ("split", "set", "subset", "partition")
_CELL = 1 << 20  # characters; a longer cell is neither a path nor a label
_BATCH = 65536  # rows
_HINT = "write CSV with the columns path,label and, if you like, split"

Cells = Sequence[str | None]
Where = str  # for messages: "line 7"


def read_text(path: str) -> Dataset:
    """Read a CSV or TSV in UTF-8. Without a header with known names, the columns are path, label (and split).

    Raises:
        ModelError: the file is not such a table.
    """
    csv.field_size_limit(_CELL)
    try:
        # bytes of paths that are not UTF-8 are kept
        with _opened(path) as file:
            first = file.readline()
            file.seek(0)
            tabs = path.lower().endswith(".tsv")
            separator = "\t" if tabs else max(",", ";", "\t", key=first.count)
            rows = csv.reader(file, delimiter=separator, skipinitialspace=True)
            photos = list(_photos(path, ((f"line {rows.line_num}", row) for row in rows if any(row))))
    except (csv.Error, OSError) as error:
        raise ModelError(f"{path} cannot be read as a table: {error}", _HINT) from error
    return _dataset(path, photos)


def _opened(path: str) -> io.TextIOWrapper:
    stream = opened_file(path) if is_url(path) else Path(path).open("rb")  # noqa: SIM115 - the caller closes it
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def read_parquet(path: str, source: str | io.BufferedIOBase, file: ParquetFile) -> Dataset:
    """Read a parquet file of text columns.

    Args:
        path: for messages.
        source: path or stream of the file.
        file: the open file.

    Raises:
        ModelError: a column is missing.
    """
    names = file.schema_arrow.names
    columns = [names[place] for place in _columns(path, names) if place is not None]

    def rows() -> Iterator[tuple[Where, Cells]]:
        yield "the schema", columns
        number = count(1)
        for group, name in product(range(file.num_row_groups), columns):
            check_expansion(file, group, name)
        for batch in with_dictionaries(source, file, columns).iter_batches(_BATCH, columns=columns):
            for cells in zip(*(values(batch.column(name)) for name in columns), strict=True):
                yield f"row {next(number)}", [None if cell is None else str(cell) for cell in cells]

    try:
        return _dataset(path, list(_photos(path, rows())))
    except PhotoError as error:
        raise ModelError(f"{path}: {error.message}", _HINT) from error


def _dataset(path: str, photos: list[LabelledPhoto]) -> Dataset:
    if not photos:
        raise ModelError(f"{path} lists no photos", _HINT)
    sets = {photo.label: frozenset([photo.label] if photo.label else []) for photo in photos}
    decided, contradictory = without_contradictions((photo, sets[photo.label]) for photo in photos)
    return Dataset(path, "table", sorted_classes(decided), decided, contradictory=contradictory)


def _photos(table: str, rows: Iterable[tuple[Where, Cells]]) -> Iterator[LabelledPhoto]:
    interned: dict[str, str] = {}  # one text a class, not one a photo
    folder = table.rpartition("/")[0] if is_url(table) else str(Path(table).parent)
    places: tuple[int, int, int | None] | None = None
    for where, cells in rows:
        if places is None:
            header = [cell or "" for cell in cells]
            places = _columns(table, header)
            if not _is_photo(header[places[0]]):
                continue
        path, label, split = places
        if len(cells) <= max(path, label):
            raise ModelError(f"{table}, {where}: there are only {len(cells)} columns", _HINT)
        text = (cells[label] or "").strip() and cells[label]
        yield LabelledPhoto(
            _resolved(folder, cells[path] or ""),
            interned.setdefault(text, text) if text else None,
            _split(table, where, cells[split]) if split is not None and split < len(cells) else None,
        )


def _columns(table: str, header: Sequence[str]) -> tuple[int, int, int | None]:
    """The positions of path, label and split.

    Raises:
        ModelError: they cannot be found.
    """
    names = [name.strip().casefold() for name in header]

    def place(accepted: Iterable[str]) -> int | None:
        return next((names.index(name) for name in accepted if name in names), None)

    path, label, split = place(PATHS), place(LABELS), place(_SPLITS)
    if path is not None and label is not None:
        return path, label, split
    # the header may be missing, or in another language
    if path is None and label is None and len(names) in (2, 3):
        return 0, 1, 2 if len(names) == 3 else None
    lacking = "path" if path is None else "label"
    shown = ", ".join(name[:40] or "(no name)" for name in header[:10])
    raise ModelError(f"{table} has no column {lacking!r}; its columns are {shown}", _HINT)


def _is_photo(cell: str) -> bool:
    return Path(cell.strip()).suffix.lower() in IMAGE_SUFFIXES


def _resolved(folder: str, path: str) -> str:
    """Resolve a path of the table: relative to the table's folder, else to the current one. URLs are unchanged."""
    if is_url(path) or is_url(folder):
        return path if is_url(path) else f"{folder}/{path.removeprefix('./')}"
    beside = str(Path(folder, path))
    return path if not os.path.lexists(beside) and os.path.lexists(path) else beside


def _split(table: str, where: Where, cell: str | None) -> str | None:
    if cell is None or not cell.strip():
        return None
    split = split_of(cell)
    if split is None:
        raise ModelError(f"{table}, {where}: {cell!r} is not a split", "write train, val or test")
    return split
