"""Hugging Face's parquet files: the bytes of photos inside, the names of classes in the metadata.

A photo is a struct of ``bytes`` and ``path``, or plain bytes; a label is a number into the names of a ``ClassLabel``,
or text. The split of a file is given by its name (``train-00000-of-00005.parquet``) or that of its folder.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError, PhotoError, UnavailableError
from convnext_cli.datasets import table
from convnext_cli.datasets.labelled import Dataset, Key, LabelledPhoto, sorted_classes, split_of
from convnext_cli.photos.containers.parquet import check_expansion, features, image_column, values, with_dictionaries
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.reading import opened_file

if TYPE_CHECKING:
    from pyarrow import ChunkedArray
    from pyarrow.parquet import ParquetFile

_KEPT = 256 * 2**20  # bytes of row groups that are kept for the next photos
_AGAIN = "download or write the file again"
_FIRST_WORD = re.compile(r"[a-z]+", re.IGNORECASE)


@dataclass(frozen=True)
class _Columns:
    """The columns of a file.

    Args:
        image: the column of photos.
        label: the column of labels; None if there is none.
        nested: whether a photo is a struct.
        names: of the classes; None if the metadata have none.
    """

    image: str
    label: str | None
    nested: bool
    names: tuple[str, ...] | None

    @property
    def bytes(self) -> str:
        """The column of the photos' bytes."""
        return f"{self.image}.bytes" if self.nested else self.image

    def texts(self, file: ParquetFile) -> list[str]:
        """The columns besides the bytes: the photo's own name, and its label."""
        has_path = self.nested and any(f.name == "path" for f in file.schema_arrow.field(self.image).type)
        return [f"{self.image}.path"] * has_path + ([self.label] if self.label is not None else [])

    def leaves(self, file: ParquetFile) -> list[str]:
        return [self.bytes, *self.texts(file)]


class ParquetSource:
    """Photos by (file, row group, row). The last row groups are cached, so that each is read once if read in order."""

    def __init__(self, files: Sequence[ParquetFile], columns: _Columns) -> None:
        self._files, self._columns = files, columns
        self._kept: OrderedDict[tuple[int, int], tuple[ChunkedArray, int]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, key: Key) -> bytes:
        file, group, row = key
        cell = self._group(file, group)[row].as_py()
        if not cell:
            raise PhotoError("empty", "there are no bytes in this row")
        return bytes(cell)

    def _group(self, file: int, group: int) -> ChunkedArray:
        """The bytes of a row group."""
        with self._lock:
            if (file, group) in self._kept:
                self._kept.move_to_end((file, group))
                return self._kept[file, group][0]
            name, nested = self._columns.image, self._columns.nested
            from pyarrow import ArrowException, compute

            try:
                read = self._files[file].read_row_group(group, columns=[self._columns.bytes])
            except (OSError, ArrowException):
                raise PhotoError("corrupt", "the parquet file is damaged at this row") from None
            column = compute.struct_field(read.column(name), "bytes") if nested else read.column(name)
            self._kept[file, group] = (column, column.nbytes)
            while sum(size for _, size in self._kept.values()) > _KEPT and len(self._kept) > 1:
                self._kept.popitem(last=False)
            return column

    def size(self, key: Key) -> int:
        return 0  # known only after reading

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._kept.clear()


def read(paths: Sequence[str], named: str) -> Dataset:
    """The photos of parquet files, in the order of the files; or of one file that holds a table of paths.

    Args:
        paths: of the files.
        named: the path that the user named, for messages.

    Raises:
        ModelError: the files contain neither, or their columns differ.
        UnavailableError: pyarrow is missing.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UnavailableError("reading parquet needs pyarrow", "pip install pyarrow") from error
    sources = [opened_file(path) if is_url(path) else path for path in paths]
    files = []
    for path, source in zip(paths, sources, strict=True):
        try:
            files.append(ParquetFile(source))
        except (OSError, ArrowException) as error:
            raise ModelError(f"{path} cannot be read as parquet: {error}", _AGAIN) from error
    if image_column(files[0]) is None and len(files) == 1:
        return table.read_parquet(paths[0], sources[0], files[0])
    columns = [_columns(path, file) for path, file in zip(paths, files, strict=True)]
    for path, other in zip(paths, columns, strict=True):
        if other != columns[0]:
            raise ModelError(f"{path} has other columns or classes than {paths[0]}", "name only one of them")
    files = [
        with_dictionaries(source, file, columns[0].leaves(file)) for source, file in zip(sources, files, strict=True)
    ]
    photos: list[LabelledPhoto] = []
    for number, path in enumerate(paths):
        try:
            photos += _photos(path, number, files[number], columns[0])
        except (OSError, ArrowException) as error:
            raise ModelError(f"{path} is damaged: {error}", _AGAIN) from error
        except PhotoError as error:
            raise ModelError(f"{path}: {error.message}", _AGAIN) from error
    if not photos:
        raise ModelError(f"there are no photos in {named}", "name parquet files that contain photos")
    classes = columns[0].names or sorted_classes(photos)
    return Dataset(named, "parquet", classes, tuple(photos), ParquetSource(files, columns[0]))


def _photos(path: str, number: int, file: ParquetFile, columns: _Columns) -> Iterator[LabelledPhoto]:
    word = _FIRST_WORD.match(Path(path).name)
    split = (split_of(word[0]) if word else None) or split_of(Path(path).parent.name)
    names = columns.names or ()
    interned: dict[object, str] = {}
    row = 0
    for group in range(file.num_row_groups):
        for place, (label, name) in enumerate(_labels_and_names(file, group, columns)):
            if columns.names is not None:
                text = names[label] if isinstance(label, int) and 0 <= label < len(names) else None
            else:
                text = None if label is None else interned.setdefault(label, str(label))
            shown = f"{path}/{row}/{Path(name).name}" if name else f"{path}/{row}"
            yield LabelledPhoto(shown, text, split, (number, group, place))
            row += 1


def _labels_and_names(file: ParquetFile, group: int, columns: _Columns) -> Iterator[tuple[object, str | None]]:
    """Label and name of each photo of a row group, without its bytes.

    Raises:
        PhotoError: a column expands to too many bytes.
    """
    from pyarrow import compute

    texts = columns.texts(file)
    for column in columns.leaves(file):
        check_expansion(file, group, column)
    size = file.metadata.row_group(group).num_rows
    read = file.read_row_group(group, columns=texts) if texts else None
    labels = paths = [None] * size
    if read is not None and columns.label:
        labels = values(read.column(columns.label))
    if read is not None and f"{columns.image}.path" in texts:
        paths = values(compute.struct_field(read.column(columns.image), "path"))
    yield from zip(labels, paths, strict=True)


def _columns(path: str, file: ParquetFile) -> _Columns:
    """Find the columns of photos and labels.

    Raises:
        ModelError: they cannot be found.
    """
    import pyarrow as pa

    schema = file.schema_arrow
    image = image_column(file)
    shown = ", ".join(schema.names[:10])
    if image is None:
        raise ModelError(
            f"{path} has no column of photos; its columns are {shown}",
            "store the bytes of the photos in a column named image",
        )
    types = features(file)
    classes = [name for name, kind in types.items() if kind.get("_type") == "ClassLabel" and name in schema.names]
    label = next((name for name in ("label", "labels", *table.LABELS) if name in schema.names), None)
    if label is None and len(classes) > 1:
        raise ModelError(
            f"{path} has several columns of classes: {', '.join(classes)}", "rename the one to use to label"
        )
    label = label or (classes[0] if classes else None)
    names = types.get(label, {}).get("names") if label in classes else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ModelError(f"{path}: the names of the classes in the metadata are damaged", _AGAIN)
    if label is not None and names is None and pa.types.is_nested(schema.field(label).type):
        raise ModelError(f"{path}: the column {label} has more than one label a photo", "keep one label for each photo")
    nested = pa.types.is_struct(schema.field(image).type)
    return _Columns(image, label, nested, None if names is None else tuple(names))
