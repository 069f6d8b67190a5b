"""The store of a job, where the job's own tests cannot aim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convnext_cli.jobs.store import Found, Store
from convnext_cli.photos.find import Photo
from convnext_cli.predict.rows import Prediction, Row


class Interrupts:
    """A value in whose place an interruption comes, as Ctrl-C does between two statements."""

    def __conform__(self, _protocol: Any) -> None:
        raise KeyboardInterrupt


def row(path: str, label: str, score: Any = 0.5) -> Row:
    return Row(path, "ok", 8, 8, (Prediction(1, 0, None, label, score),), "model", "sha")


@pytest.mark.parametrize("known", [False, True])
def test_an_interruption_within_a_row_leaves_no_half_of_it(tmp_path: Path, known: bool) -> None:
    store = Store(tmp_path / "labels.job")
    settings = store.settings("model", "sha", {})
    a, b = (Found(Photo(name), 1, 1) for name in ("/a.jpg", "/b.jpg"))
    store.put(a, row("/a.jpg", "cat"), settings)
    if known:
        store.put(b, row("/b.jpg", "dog"), settings)
    with pytest.raises(KeyboardInterrupt):
        store.put(b, row("/b.jpg", "fish", Interrupts()), settings)
    store.close()
    again = Store(tmp_path / "labels.job")
    found = [(entry.row.path, [p.label for p in entry.row.predictions]) for entry in again.entries()]
    again.close()
    assert found == [("/a.jpg", ["cat"]), *([("/b.jpg", ["dog"])] if known else [])]
