"""One line a photo, for other programs: path, label and score with tabs between them."""

from __future__ import annotations

from typing import IO

from convnext_cli.cli import render
from convnext_cli.predict.rows import Row


class LinesWriter:
    """``path<TAB>label<TAB>score``, and further guesses in further pairs of columns.

    With --sure, the first pair is the answer. The label of a photo below the threshold, or without an answer, is
    ``unknown``. A failed photo has the label ``failed``, no score, and then
    kind and message. Whatever names hold, a photo is one line, and a tab parts columns: control characters are escaped.
    """

    def __init__(self, stream: IO[bytes], k: int) -> None:
        self._stream, self._k = stream, k

    def write(self, row: Row) -> None:
        cells = [row.path]
        if row.error is not None:
            cells += ["failed", "", row.error.kind, row.error.message]
        elif row.status == "unknown":
            cells += ["unknown", f"{row.predictions[0].score:.4f}"]
        elif row.answer is not None and row.answer.label is not None:
            cells += [row.answer.label, f"{row.answer.score:.4f}"]
            for prediction in row.predictions[: self._k - 1]:
                cells += [prediction.label, f"{prediction.score:.4f}"]
        else:
            for prediction in row.predictions[: self._k]:
                cells += [prediction.label, f"{prediction.score:.4f}"]
        self._stream.write("\t".join(map(render.plain, cells)).encode() + b"\n")

    def close(self) -> None:
        self._stream.flush()
