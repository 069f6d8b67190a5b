"""CSV and TSV that every reader accepts."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO


def csv_line(cells: Iterable[object], delimiter: str = ",") -> str:
    """One line of a table, with its line feed.

    A cell with a carriage return is quoted, since readers end a line there as well.
    """
    text = StringIO()
    # so that csv quotes both characters, which it does by itself from Python 3.13 on
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"
