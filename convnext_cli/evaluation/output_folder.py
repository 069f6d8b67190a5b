"""The folder that ``-o`` names: tables, pictures and pages, complete or not there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.base.tables import csv_line
from convnext_cli.base.text import is_well_formed
from convnext_cli.datasets import Dataset, LabelledPhoto
from convnext_cli.evaluation import figures, mistakes, plots
from convnext_cli.evaluation.document import Judged, Values, title
from convnext_cli.evaluation.truth import NONE, Truth
from convnext_cli.predict.rows import Row, to_json

DOCUMENT, MATRIX, PREDICTIONS = "evaluation.json", "confusion.csv", "predictions.jsonl"
AGAINST, PAGE = "predictions-against.jsonl", "mistakes.html"
PICTURES, CURVE = ("confusion.png", "reliability.png"), "precision.png"
NAMES = frozenset((DOCUMENT, MATRIX, PREDICTIONS, AGAINST, PAGE, CURVE, *PICTURES))
FAILED = "(failed)"  # the column of photos that have no answer


def check(target: Path, *, overwrite: bool) -> None:
    """Refuse what would be lost, before a model is loaded. Raises UsageError and OutputError."""
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file", "-o names a folder")
    names = {entry.name for entry in target.iterdir()} if target.exists() else set()
    if names - NAMES:
        raise UsageError(f"{target} holds other things, such as {min(names - NAMES)}", "choose a new folder")
    if names and not overwrite:
        raise UsageError(f"{target} exists already", "choose another name, or replace it with --overwrite")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"the folder of {target} does not exist", f"mkdir -p {target.parent}")


class Predictions:
    """Writes the row of each photo, with its class, as it comes."""

    def __init__(self, stream: IO[bytes], truth: Truth) -> None:
        self._stream, self._truth, self._place = stream, truth, 0
        self._numbers = {name: number for number, name in enumerate(truth.labels.names)}

    def keep(self, photo: LabelledPhoto, row: Row) -> None:
        truth, place = self._truth, self._place
        self._place += 1
        best = self._numbers[row.predictions[0].label] if row.predictions else None
        right = truth.answers[place] == best if truth.classes else best in (truth.several or [])[place]
        known = {"class": photo.label, "right": bool(right)}
        values = json.loads(to_json(row)) | known
        text = json.dumps(values, ensure_ascii="path_bytes" in values or not is_well_formed(photo.label or ""))
        self._stream.write(text.encode() + b"\n")


def write(
    folder: Path,
    document: Values,
    judged: Judged,
    dataset: Dataset,
    photos: Sequence[LabelledPhoto],
    *,
    most: int,
) -> list[str]:
    """Fill the folder.

    Args:
        folder: which exists.
        document: of the evaluation.
        judged: the first model's answers.
        dataset: has the photos for the page of mistakes.
        photos: those that count.
        most: photos on the page of mistakes.

    Returns:
        The names of the plots that need matplotlib, which is not installed.
    """
    (folder / DOCUMENT).write_bytes(to_bytes(document))
    drawn = plots.available()
    if judged.truth.classes:
        _matrix(folder, judged, drawn)
    if drawn:
        plots.reliability(document["calibration"]["bins"], document["calibration"]["ece"], folder / PICTURES[1])
    has_curve = "sure" in document
    if drawn and has_curve:
        plots.precision([document, *([document["against"]] if "against" in document else [])], folder / CURVE)
    by_path = {photo.path: photo for photo in photos}
    parts = mistakes.page(
        title(document), _summary(document), document["wrong"][:most], lambda path: dataset.read(by_path[path])
    )
    mistakes.write(parts, folder / PAGE)
    return [] if drawn else [*PICTURES[0 if judged.truth.classes else 1 :], *([CURVE] if has_curve else [])]


def _summary(document: Values) -> str:
    """One line: photos, accuracy, mistakes."""
    accuracy = "" if document["top1"]["value"] is None else f"top-1 {100 * document['top1']['value']:.2f} % · "
    return f"{document['photos']:,} photos · {accuracy}{len(document['wrong']):,} wrong, the surest first"


def to_bytes(document: Values) -> bytes:
    """JSON, in UTF-8 also where a path is not."""
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    if not is_well_formed(text):
        text = json.dumps(document, indent=1, allow_nan=False)
    return text.encode() + b"\n"


def _matrix(folder: Path, judged: Judged, drawn: bool) -> None:
    """Rows are the true labels, columns these, then other answers, then the photos without one."""
    truth, answers = judged.truth, judged.answers.top[:, 0]
    counts = figures.confusions(truth.answers, answers)
    rows = sorted({true for true, _ in counts})
    others = sorted({answer for _, answer in counts} - {*rows, NONE})
    columns = [*rows, *others, *([NONE] if any(answer == NONE for _, answer in counts) else [])]
    matrix = np.zeros((len(rows), len(columns)), np.int64)
    row_of, column_of = ({label: place for place, label in enumerate(kind)} for kind in (rows, columns))
    for (true, answer), count in counts.items():
        matrix[row_of[true], column_of[answer]] = count
    names: list[str] = [FAILED if label == NONE else truth.labels.names[label] for label in columns]
    with (folder / MATRIX).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        stream.write(csv_line(["true", *names]))
        stream.writelines(csv_line([names[place], *matrix[place].tolist()]) for place in range(len(rows)))
    if drawn:
        plots.confusion(matrix[:, : len(rows)], names[: len(rows)], folder / PICTURES[0])
