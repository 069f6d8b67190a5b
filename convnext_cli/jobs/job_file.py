"""A job's file while it is open: SQLite, one thread at a time, its errors in our words, and values by name."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.base.text import JsonValue
from convnext_cli.jobs import schema

_SMALLEST = 512  # bytes; SQLite takes a shorter file for a new one


class JobFile:
    """The connection to a job's file. Each use enters it, also within another use, and is given the connection.

    Args:
        path: made when it is missing.

    Raises:
        UsageError: the file is something else, or is being written by another program; so do all methods.
        ModelError: it is damaged; so do all methods.
        OutputError: it cannot be written; so do all methods.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._errors = schema.SqliteErrors(path)
        self._is_closed = False
        self._is_stale = False  # whether this process has noted that outputs are older than the rows
        if path.exists() and 0 < path.stat().st_size < _SMALLEST:
            raise self.damaged("it is cut off")
        with self._errors:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._open()

    def _open(self) -> None:
        """Make the tables that are missing, and begin a transaction."""
        database = self._database
        is_new = self._is_new()
        # readers go on beside a run; network file systems lack this and keep SQLite's usual journal
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("BEGIN IMMEDIATE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version < schema.VERSION:
            steps = [schema.SCHEMA] if is_new else [schema.UPGRADES[v] for v in range(version, schema.VERSION)]
            for statement in "".join(steps).split(";\n"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {schema.APPLICATION}")
            database.execute(f"PRAGMA user_version = {schema.VERSION}")
        database.execute("COMMIT")
        for statement in (schema.FOUND, *schema.DERIVED):
            database.execute(statement)
        database.execute("BEGIN")

    def _is_new(self) -> bool:
        """Whether the file is empty; raises UsageError when something else is in it."""
        hint = "choose another name for the output, or replace it with --overwrite"
        database = self._database
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return True
        application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if application != schema.APPLICATION:
            raise UsageError(f"{self.path} is not a job of convnext", hint)
        if not 1 <= version <= schema.VERSION:
            raise UsageError(f"{self.path} was written by another release of convnext (version {version})", hint)
        # a page that is its own ancestor would keep a query busy for ever
        (health,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if health != "ok":
            raise self.damaged(str(health).splitlines()[-1])
        return False

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        return self._database

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._errors.__exit__(kind, error, trace)
        finally:
            self._lock.release()

    def damaged(self, reason: str) -> ModelError:
        """The error for a file that another program, or a disk, has changed."""
        return schema.damaged(self.path, reason)

    def value(self, name: str) -> JsonValue:
        """The value that was noted under this name, or None."""
        with self as database:
            row = database.execute("SELECT value FROM job WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])

    def note(self, **values: object) -> None:
        """Keep JSON values by name."""
        self._is_stale = self._is_stale and bool(values.get("stale", True))
        with self as database:
            for name, value in values.items():
                database.execute("INSERT OR REPLACE INTO job VALUES (?, ?)", (name, json.dumps(value)))

    def changed(self) -> None:
        """Note, once, that outputs are older than the rows; ``note(stale=False)`` says that they are not any more."""
        if not self._is_stale:
            self.note(stale=True)
            self._is_stale = True

    def commit(self) -> None:
        """What was put so far stays, whatever happens to this process."""
        with self as database:
            with suppress(sqlite3.OperationalError):  # there is none, unless an interruption came within a row
                database.execute("ROLLBACK TO put")
            if database.in_transaction:
                database.execute("COMMIT")
            database.execute("BEGIN")

    def close(self) -> None:
        """Commit and close; a disk that is full keeps what was committed before. Closing twice does no harm."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self.commit()
            finally:
                with suppress(sqlite3.Error):
                    self._database.close()
