"""The writers: what goes in comes out of the library that people read the format with."""

import base64
import csv
import io
import json
import math

import pytest

from convnext_cli.base.errors import PhotoError
from convnext_cli.predict.rows import Prediction, Row
from convnext_cli.predict.writers import FORMATS, Columns

STRANGE = [
    "a,b.jpg",
    'quo"te.jpg',
    "new\nline.jpg",
    "carriage\rreturn.jpg",
    "both\r\n.jpg",
    "tab\there.jpg",
    "[red].jpg",
    "ümläut.jpg",
    "日本.jpg",
    "bad\udcfc.jpg",
]


def rows() -> list[Row]:
    guesses = (Prediction(1, 30, "n02123045", "tabby, cat", 0.81), Prediction(2, 5, None, "x", 0.1))
    error = PhotoError("truncated", "the file ends early")
    return [
        *(Row(path, "ok", 451, 300, guesses, "default", "be9c") for path in STRANGE),
        Row("broken.jpg", "failed", None, None, (), "default", "be9c", error),
    ]


def written(form: str, given: list[Row], k: int = 2) -> bytes:
    stream = io.BytesIO()
    writer = FORMATS[form].writer(stream, Columns(k))
    for row in given:
        writer.write(row)
    writer.close()
    return stream.getvalue()


def check(found: dict, row: Row) -> None:
    expected = row.to_dict()
    assert {k: found.get(k) for k in expected} == expected


def test_jsonl() -> None:
    lines = written("jsonl", rows()).decode().splitlines()
    assert len(lines) == len(rows())
    for line, row in zip(lines, rows(), strict=True):
        check(json.loads(line), row)


def test_json_is_one_array_also_when_empty() -> None:
    for found, row in zip(json.loads(written("json", rows())), rows(), strict=True):
        check(found, row)
    assert json.loads(written("json", [])) == []


def test_bytes_of_a_path_that_is_not_utf8_survive() -> None:
    (line,) = [line for line in written("jsonl", rows()).splitlines() if b"path_bytes" in line]
    found = json.loads(line)
    assert found["path"] == "bad\udcfc.jpg"
    assert base64.b64decode(found["path_bytes"]) == b"bad\xfc.jpg"


@pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_csv_and_tsv(form: str, delimiter: str) -> None:
    text = written(form, rows()).decode()  # always UTF-8
    found = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    assert len(found) == len(rows())
    for line, row in zip(found, rows(), strict=True):
        assert line["path"] == row.path.encode("utf-8", "backslashreplace").decode()
        assert line["status"] == row.status
        if row.predictions:
            assert (line["index"], line["id"], line["label"], line["score"]) == (
                "30",
                "n02123045",
                "tabby, cat",
                "0.81",
            )
            assert (line["index_2"], line["id_2"], line["label_2"], line["score_2"]) == ("5", "", "x", "0.1")
        else:
            assert (line["label"], line["error_kind"], line["error_message"]) == (
                "",
                "truncated",
                "the file ends early",
            )
    assert next(iter(csv.reader(io.StringIO(text), delimiter=delimiter))) == [
        "path", "status", "width", "height", "index", "id", "label", "score", "index_2", "id_2", "label_2", "score_2",
        "model", "model_sha256", "error_kind", "error_message",
    ]  # fmt: skip


@pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_csv_and_tsv_for_another_reader(form: str, delimiter: str) -> None:
    reader = pytest.importorskip("pyarrow.csv")
    options = reader.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    table = reader.read_csv(io.BytesIO(written(form, rows())), parse_options=options)
    expected = [row.path.encode("utf-8", "backslashreplace").decode() for row in rows()]
    assert table.column("path").to_pylist() == expected


def test_parquet() -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    many = rows() * 200  # several row groups
    table = pq.read_table(io.BytesIO(written("parquet", many))).to_pylist()
    assert len(table) == len(many)
    for found, row in zip(table, many, strict=True):
        assert found["path_bytes"] == (b"bad\xfc.jpg" if "\udcfc" in row.path else None)
        assert found["status"] == row.status
        assert [p["label"] for p in found["predictions"]] == [p.label for p in row.predictions]
        scores = zip(found["predictions"], row.predictions, strict=True)
        assert all(math.isclose(p["score"], q.score, rel_tol=1e-6) for p, q in scores)
        assert (found["error"] or {}).get("kind") == (row.error.kind if row.error else None)
