"""Views of a job: what is shown of the guesses that are kept, and photos' statuses."""

from __future__ import annotations

import sqlite3
from itertools import groupby
from operator import itemgetter

from convnext_cli.base.text import JsonObject
from convnext_cli.jobs.job_file import JobFile
from convnext_cli.jobs.photo_state import text
from convnext_cli.jobs.view import Kept, Predictions, View
from convnext_cli.predict.rows import Prediction, Row

_CHUNK = 512  # photos that are held in memory at once


class Views:
    """``predictions`` have what is shown; ``guesses`` have what is kept, of photos where that is something else.

    Args:
        file: of the job. All methods raise what ``JobFile`` raises.
    """

    def __init__(self, file: JobFile) -> None:
        self._file = file
        self._view: View | None = None
        self._kept: dict[int, Kept] = {}

    def show(self, view: View, kept: dict[int, Kept], model: str) -> None:
        """Have the rows of some settings show a view: those that are there, in one transaction, and those to come.

        kept: what is kept, by the number of the settings. model: the name of their weights. Nothing is decoded.
        Raises ModelError for a job that is damaged.
        """
        self._view, self._kept = view, kept
        with self._file as database:
            database.execute("DELETE FROM accepted")
            database.executemany("INSERT INTO accepted VALUES (?)", [(number,) for number in kept])
            database.execute("SAVEPOINT view")
            try:
                self._show(database, view, kept, model)
            except BaseException:  # an interruption too: half of a view must not be committed when the job is closed
                database.execute("ROLLBACK TO view")
                raise
            finally:
                database.execute("RELEASE view")
        self._file.commit()

    def _show(self, database: sqlite3.Connection, view: View, kept: dict[int, Kept], model: str) -> None:
        before: JsonObject = self._file.value("shown") or {}
        shown = before | {str(number): [view.k, view.names] for number in kept}
        floors = {"min_score": view.min_score, "floors": dict(view.floors), "of": sorted(kept)}
        start = database.total_changes
        query = "UPDATE settings SET model = ?1 WHERE id IN (SELECT id FROM accepted) AND model != ?1"
        database.execute(query, (model,))
        for number, values in kept.items():
            if before.get(str(number)) != shown[str(number)]:
                self._derive_again(database, number, view, values)
        if self._file.value("floors") != floors:
            self._set_statuses(database, view)
        if database.total_changes > start or self._file.value("k") not in (None, view.k):
            self._file.changed()
        if (before, self._file.value("floors"), self._file.value("k")) != (shown, floors, view.k):
            self._file.note(shown=shown, floors=floors, k=view.k)

    def _derive_again(self, database: sqlite3.Connection, number: int, view: View, kept: Kept) -> None:
        """Have the predictions of all photos with these settings be those of the view."""
        query = """
            SELECT id FROM photos WHERE settings = ? AND status IN ('ok', 'unknown') AND id > ? ORDER BY id LIMIT ?
        """
        last = -1
        while photos := [row[0] for row in database.execute(query, (number, last, _CHUNK))]:
            marks = ", ".join("?" * len(photos))
            select = f"FROM {{}} WHERE photo IN ({marks}) ORDER BY photo, rank"
            columns = 'SELECT photo, rank, "index", id, label, score '
            current = _by_photo(database.execute(columns + select.format("predictions"), photos))
            columns = "SELECT photo, rank, \"index\", NULL, '', score "
            complete = _by_photo(database.execute(columns + select.format("guesses"), photos))
            for photo in photos:
                old = current.get(photo, ())
                base = complete.get(photo, old)
                try:
                    new = view.shown(base, kept)
                except (IndexError, KeyError, TypeError, ValueError) as error:
                    raise self._file.damaged(f"of a photo, {error}") from error
                if old != tuple(_as_stored(guess) for guess in new) or (photo in complete) != _is_part(
                    new, base, view, kept
                ):
                    self.keep_guesses(photo, new, base if _is_part(new, base, view, kept) else None)
            if photos[-1] <= last:
                raise self._file.damaged("its photos are not in order")
            last = photos[-1]

    def _set_statuses(self, database: sqlite3.Connection, view: View) -> None:
        """Have all photos be ok or unknown as the view has it."""
        database.execute("DELETE FROM floors")
        floors = [(text(name), score) for name, score in view.floors.items()]
        database.executemany("INSERT OR REPLACE INTO floors VALUES (?, ?)", floors)
        query = """
            UPDATE photos SET status = best.status FROM (
                SELECT photo, iif(score < coalesce(
                    (SELECT f.score FROM floors f WHERE f.name = label),
                    (SELECT f.score FROM floors f WHERE f.name = p.id), ?), 'unknown', 'ok') AS status
                FROM predictions p WHERE rank = 1
            ) AS best
            WHERE best.photo = photos.id AND photos.status IN ('ok', 'unknown') AND photos.status != best.status
            AND photos.settings IN (SELECT id FROM accepted) AND answer_level IS NULL
        """
        database.execute(query, (view.min_score,))

    def derived(self, row: Row, settings: int) -> tuple[Predictions, Predictions | None, str]:
        """Of a row with what is to be kept: the guesses to show, those to keep beside them or None, and its status."""
        view, kept = self._view, self._kept.get(settings)
        if view is None or kept is None or row.error is not None:
            return row.predictions, None, row.status
        shown = view.shown(row.predictions, kept)
        part = row.predictions if _is_part(shown, row.predictions, view, kept) else None
        # the answer decides, where there is one
        return shown, part, view.status(shown) if row.answer is None else row.status

    def keep_guesses(self, photo: int, shown: Predictions, kept: Predictions | None) -> None:
        """Write the guesses of a photo, in the place of others.

        Args:
            photo: its number.
            shown: by the present view.
            kept: all that is kept; None where it is what is shown.
        """
        with self._file as database:
            database.execute("DELETE FROM predictions WHERE photo = ?", (photo,))
            database.execute("DELETE FROM guesses WHERE photo = ?", (photo,))
            database.executemany(
                "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)",
                [(photo, p.rank, p.index, p.id, text(p.label), p.score) for p in shown],
            )
            database.executemany(
                "INSERT INTO guesses VALUES (?, ?, ?, ?)", [(photo, p.rank, p.index, p.score) for p in kept or ()]
            )


def _is_part(shown: Predictions, base: Predictions, view: View, kept: Kept) -> bool:
    """Whether what is shown does not hold all that is kept."""
    return len(shown) < len(base) or view.labels.groups != kept.groups


def _as_stored(guess: Prediction) -> Prediction:
    return Prediction(guess.rank, guess.index, guess.id, text(guess.label), guess.score)


def _by_photo(rows: sqlite3.Cursor) -> dict[int, Predictions]:
    return {
        photo: tuple(Prediction(*guess[1:]) for guess in guesses) for photo, guesses in groupby(rows, itemgetter(0))
    }
