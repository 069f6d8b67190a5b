"""Files of many photos: tar and Parquet."""

from __future__ import annotations

import io
import tarfile

import pytest


def tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def parquet_of(files: dict[str, bytes]) -> bytes:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    stream = io.BytesIO()
    cells = [{"bytes": data, "path": name} for name, data in files.items()]
    column = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    parquet.write_table(pa.table({"image": column}), stream, row_group_size=2)
    return stream.getvalue()
