"""The state of a job: one SQLite file that knows every photo, its answer, and what made it.

Everything that is labelled goes here first, in transactions; outputs of other formats are written from it when a run
ends. So a run that was killed goes on where the last transaction ended, and a photo has one row, whatever happened.

Tables: ``photos`` (one row a photo), ``predictions`` (its guesses), ``settings`` (what rows were made with), ``shards``
(those that were read to their end); the view ``results`` joins them with the best guess. A photo is known by its
absolute path or URL, kept as bytes with zeros for the separators: sorted by it, photos come in the order of a walk
through the tree.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.text import JsonObject, JsonValue
from convnext_cli.certainty.answer import Level
from convnext_cli.jobs.entry import Entry, answer_of, answer_values, is_sound, set_of
from convnext_cli.jobs.job_file import JobFile
from convnext_cli.jobs.photo_state import Found, file_of, key_of, text
from convnext_cli.jobs.stored_views import Views
from convnext_cli.jobs.walk import Walk, keys_below
from convnext_cli.predict.rows import Prediction, Row
from convnext_cli.predict.writers import Columns

_CHUNK = 512  # rows that are held in memory at once
__all__ = ["Found", "Store", "key_of"]


class Store:
    """A job: the rows of its photos. Its methods may be called from several threads.

    ``walk`` is what a walk found beside the rows, and ``views`` what is shown of the guesses that are kept.

    Args:
        path: made when it is missing.

    Raises:
        UsageError, ModelError, OutputError: as for ``JobFile``, as all methods do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = JobFile(path)
        self.walk = Walk(self._file)
        self.views = Views(self._file)

    # what the job is

    def value(self, name: str) -> JsonValue:
        """The value that was noted under this name, or None."""
        return self._file.value(name)

    def note(self, **values: object) -> None:
        """Keep JSON values by name."""
        self._file.note(**values)

    def settings(self, model: str, model_sha256: str, made_with: Mapping[str, object]) -> int:
        """The number of these settings, new or known."""
        columns = (model, model_sha256, json.dumps(made_with, sort_keys=True))
        with self._file as database:
            row = database.execute(
                "SELECT id FROM settings WHERE model = ? AND model_sha256 = ? AND made_with = ?", columns
            ).fetchone()
            if row is None:
                insert = "INSERT INTO settings (model, model_sha256, made_with) VALUES (?, ?, ?)"
                return int(database.execute(insert, columns).lastrowid or 0)
            return int(row[0])

    def settings_used(self) -> dict[int, JsonObject]:
        """The settings that rows were made with, by number."""
        query = "SELECT * FROM settings WHERE id IN (SELECT settings FROM photos)"
        with self._file as database:
            rows = database.execute(query).fetchall()
            return {
                number: {"model": model, "model_sha256": sha, **json.loads(text)} for number, model, sha, text in rows
            }

    # rows

    def put(self, state: Found, row: Row, settings: int) -> None:
        """Keep a photo's row, in the place of an older one; the present view is derived from it (``show``)."""
        bytes_ = os.fsencode(row.path)
        shown = bytes_.decode("utf-8", "backslashreplace")
        error = row.error
        guesses, kept, status = self.views.derived(row, settings)
        values = {
            "key": state.key,
            "path": shown,
            "path_bytes": None if shown.encode() == bytes_ else bytes_,
            "size": state.size,
            "mtime_ns": state.mtime_ns,
            "tag": state.tag,
            "vanished": 0,
            "settings": settings,
            "status": status,
            "width": row.width,
            "height": row.height,
            "error_kind": error and error.kind,
            "error_message": error and text(error.message),
            **answer_values(row),
        }
        names = ", ".join(f'"{name}"' for name in values)
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in values)
        marks = ", ".join(f":{name}" for name in values)
        self._file.changed()
        with self._file as database:
            database.execute("SAVEPOINT put")
            (number,) = database.execute(
                f"INSERT INTO photos ({names}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET {changes} RETURNING id",
                values,
            ).fetchone()
            self.views.keep_guesses(number, guesses, kept)
            database.execute("RELEASE put")

    def touched(self, file: str, before: tuple[int, int], after: tuple[int, int]) -> None:
        """The file has changed by our own hand: it is the same photo still, if it was the one that was labelled.

        before, after: size and time of change.
        """
        query = "UPDATE photos SET size = ?, mtime_ns = ? WHERE key = ? AND size = ? AND mtime_ns = ?"
        with self._file as database:
            database.execute(query, (*after, key_of(file), *before))

    def entries(self, *, looked_at: bool = False) -> Iterator[Entry]:
        """Every photo with its row, in order; looked_at: those alone that the last walk found.

        Raises ModelError for a job that is damaged: no photo is passed over or comes twice.
        """
        query = f"""
            SELECT p.*, s.model, s.model_sha256 FROM photos p LEFT JOIN settings s ON s.id = p.settings
            WHERE key > ? {"AND key IN (SELECT key FROM found)" if looked_at else ""} ORDER BY key LIMIT ?
        """
        guesses = """
            SELECT photo, rank, "index", id, label, score FROM predictions WHERE photo IN ({}) ORDER BY photo, rank
        """
        last, number = b"", 0
        while True:
            with self._file as database:
                cursor = database.execute(query, (last, _CHUNK))
                cursor.row_factory = sqlite3.Row
                rows: list[sqlite3.Row] = cursor.fetchall()
                marks = ", ".join("?" * len(rows))
                by_photo: dict[int, list[Prediction]] = {row["id"]: [] for row in rows}
                for photo, *guess in database.execute(guesses.format(marks), [row["id"] for row in rows]):
                    if photo not in by_photo:
                        raise self._file.damaged("its guesses are not in order")
                    by_photo[photo].append(Prediction(*guess))
            if not rows:
                break
            for values in rows:
                if not (values["error_message"] is None or isinstance(values["error_message"], str)):
                    raise self._file.damaged(f"the message of row {values['id']} is not text")
                try:
                    row = _row(values, tuple(by_photo[values["id"]]))
                except (TypeError, ValueError) as error:
                    raise self._file.damaged(f"the answer of row {values['id']} cannot be read") from error
                if not is_sound(values, row) or values["key"] <= last:
                    raise self._file.damaged(f"row {values['id']} is not as it was written")
                yield Entry(file_of(values["key"]), row)
                last = values["key"]
            number += len(rows)
        if not looked_at and number != self._count():
            raise self._file.damaged(f"{number:,} of {self._count():,} rows can be found")

    def _count(self) -> int:
        """Rows, without the help of an index."""
        with self._file as database:
            return int(database.execute("SELECT count(*) FROM photos NOT INDEXED").fetchone()[0])

    def most_guesses(self) -> int:
        """The guesses of the photo that has the most."""
        with self._file as database:
            return int(database.execute("SELECT coalesce(max(rank), 0) FROM predictions").fetchone()[0])

    def crashed(self) -> list[bytes]:
        """The keys of photos and shards that ended a process."""
        with self._file as database:
            return [key for (key,) in database.execute("SELECT key FROM photos WHERE error_kind = 'crashed'")]

    def knows(self, path: str) -> bool:
        """Whether there is a row for this path, or for one below it, that has not vanished."""
        low = key_of(path)
        query = "SELECT 1 FROM photos WHERE NOT vanished AND (key = ? OR key > ? AND key < ?) LIMIT 1"
        with self._file as database:
            return database.execute(query, (low, *keys_below(low))).fetchone() is not None

    def is_current(self, item: Found) -> bool:
        """Whether a photo has a row of the file as it is now, or a shard was read to its end as it is now."""
        table, present = ("shards", "") if item.photo.shard else ("photos", "NOT vanished AND")
        query = f"SELECT 1 FROM {table} WHERE {present} key = ? AND size IS ? AND mtime_ns IS ? AND tag IS ?"
        with self._file as database:
            state = (item.key, item.size, item.mtime_ns, item.tag)
            return database.execute(query, state).fetchone() is not None

    def statuses(self) -> dict[str, int]:
        """Photos by status, "vanished" among them."""
        query = "SELECT iif(vanished, 'vanished', status), count(*) FROM photos GROUP BY 1"
        with self._file as database:
            return {str(name): count for name, count in database.execute(query)}

    def failures(self) -> dict[str, int]:
        """Failed photos by kind, the most frequent first."""
        query = """
            SELECT error_kind, count(*) FROM photos WHERE status = 'failed' AND NOT vanished
            GROUP BY 1 ORDER BY 2 DESC, 1
        """
        with self._file as database:
            return {str(name): count for name, count in database.execute(query)}

    def first_failures(self, most: int) -> list[tuple[str, str, str]]:
        """The first failed photos in order: path, kind and message."""
        query = """
            SELECT path, error_kind, error_message FROM photos WHERE status = 'failed' AND NOT vanished
            ORDER BY key LIMIT ?
        """
        with self._file as database:
            return [(str(path), str(kind), str(text)) for path, kind, text in database.execute(query, (most,))]

    def labels(self) -> dict[str, int]:
        """Photos with status ok by their answer or else their best label, the most frequent first."""
        query = """
            SELECT coalesce(answer, label), count(*) FROM photos p JOIN predictions b ON b.photo = p.id AND b.rank = 1
            WHERE status = 'ok' AND NOT vanished GROUP BY 1 ORDER BY 2 DESC, 1
        """
        with self._file as database:
            return {str(name): count for name, count in database.execute(query)}

    def levels(self) -> dict[Level, int]:
        """Photos by the level of their answers; empty where no answers were asked for."""
        query = """
            SELECT answer_level, count(*) FROM photos WHERE answer_level IS NOT NULL AND NOT vanished GROUP BY 1
        """
        with self._file as database:
            return dict(database.execute(query).fetchall())

    def columns(self) -> Columns:
        """What flat formats have columns for."""
        used = self.settings_used().values()
        return Columns(
            int(self.value("k") or self.most_guesses()),
            answer=any(values.get("sure") is not None for values in used),
            labels=any(values.get("sets") is not None for values in used),
        )

    def commit(self) -> None:
        """What was put so far stays, whatever happens to this process."""
        self._file.commit()

    def close(self) -> None:
        """Commit and close; a disk that is full keeps what was committed before. Closing twice does no harm."""
        self._file.close()


def _row(values: sqlite3.Row, predictions: tuple[Prediction, ...]) -> Row:
    kind, path = values["error_kind"], values["path_bytes"]
    return Row(
        path=os.fsdecode(path) if isinstance(path, bytes) else values["path"],
        status="vanished" if values["vanished"] else values["status"],
        width=values["width"],
        height=values["height"],
        predictions=predictions,
        model=values["model"],
        model_sha256=values["model_sha256"],
        error=None if kind is None else PhotoError(kind, values["error_message"]),
        answer=answer_of(values),
        prediction_set=set_of(values),
    )
