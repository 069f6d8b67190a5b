"""The tables of a job's file, and what SQLite's errors mean to its user."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from types import TracebackType

from convnext_cli.base.errors import ModelError, OutputError, UsageError

APPLICATION = 0x434E5854  # "CNXT", in the file's header
VERSION = 4

_RESULTS = """
CREATE VIEW results AS
    SELECT p.path, iif(p.vanished, 'vanished', p.status) AS status, b.label, b.score, b.id, b."index",
           p.width, p.height, p.error_kind, p.error_message, s.model, s.model_sha256,
           p.answer, p.answer_id, p.answer_score, p.answer_level, p.answer_why, p."set", p.coverage
    FROM photos p JOIN settings s ON s.id = p.settings LEFT JOIN predictions b ON b.photo = p.id AND b.rank = 1
    ORDER BY p.key;
"""
SCHEMA = f"""
CREATE TABLE job (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE settings (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, model_sha256 TEXT NOT NULL, made_with TEXT NOT NULL
);
CREATE TABLE photos (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    path TEXT NOT NULL,
    path_bytes BLOB,            -- only where the path is not UTF-8
    size INTEGER,               -- bytes; NULL where there was no file to look at
    mtime_ns INTEGER,
    tag TEXT,                   -- of photos in a store or a shard: what else tells that they are as they were
    vanished INTEGER NOT NULL DEFAULT 0,
    settings INTEGER NOT NULL REFERENCES settings,
    status TEXT NOT NULL,       -- ok, unknown, failed
    width INTEGER,
    height INTEGER,
    error_kind TEXT,
    error_message TEXT,
    answer TEXT,                -- NULL where there is none, and where none was asked for: then there is no level either
    answer_id TEXT,
    answer_score REAL,
    answer_level TEXT,          -- class, broader, none
    answer_why TEXT,
    answer_above TEXT,          -- the groups above the answer, as a JSON list, the broadest first
    "set" TEXT,                 -- a JSON list of labels
    coverage REAL
);
CREATE TABLE predictions (
    photo INTEGER NOT NULL REFERENCES photos ON DELETE CASCADE,
    rank INTEGER NOT NULL,
    "index" INTEGER NOT NULL,
    id TEXT,
    label TEXT NOT NULL,
    score REAL NOT NULL,
    PRIMARY KEY (photo, rank)
) WITHOUT ROWID;
CREATE TABLE guesses (      -- all that is kept of photos of which predictions show a part, or sums
    photo INTEGER NOT NULL REFERENCES photos ON DELETE CASCADE,
    rank INTEGER NOT NULL,
    "index" INTEGER NOT NULL,
    score REAL NOT NULL,
    PRIMARY KEY (photo, rank)
) WITHOUT ROWID;
CREATE TABLE shards (key BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, tag TEXT) WITHOUT ROWID;
{_RESULTS}"""
# From each earlier version to the next one: photos of stores, and shards that were read to their end; views; answers
# and sets.
UPGRADES = {
    1: """
ALTER TABLE photos ADD COLUMN tag TEXT;
CREATE TABLE shards (key BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, tag TEXT) WITHOUT ROWID;
""",
    2: """
CREATE TABLE guesses (
    photo INTEGER NOT NULL REFERENCES photos ON DELETE CASCADE, rank INTEGER NOT NULL, "index" INTEGER NOT NULL,
    score REAL NOT NULL, PRIMARY KEY (photo, rank)
) WITHOUT ROWID;
""",
    3: f"""
ALTER TABLE photos ADD COLUMN answer TEXT;
ALTER TABLE photos ADD COLUMN answer_id TEXT;
ALTER TABLE photos ADD COLUMN answer_score REAL;
ALTER TABLE photos ADD COLUMN answer_level TEXT;
ALTER TABLE photos ADD COLUMN answer_why TEXT;
ALTER TABLE photos ADD COLUMN answer_above TEXT;
ALTER TABLE photos ADD COLUMN "set" TEXT;
ALTER TABLE photos ADD COLUMN coverage REAL;
DROP VIEW IF EXISTS results;
{_RESULTS}""",
}
# What a walk found; on disk, but gone with the run. shard: whether it holds photos, and is to be opened.
FOUND = """
CREATE TEMP TABLE found (
    key BLOB PRIMARY KEY, path BLOB NOT NULL, size INTEGER, mtime_ns INTEGER, tag TEXT, kind TEXT, message TEXT,
    todo INTEGER NOT NULL, shard INTEGER NOT NULL
) WITHOUT ROWID;
"""
# The settings from whose rows the present view is derived, and its floors by label or id.
DERIVED = (
    "CREATE TEMP TABLE accepted (id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE floors (name TEXT PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID",
)
# Of a file that is not, or not any more, what a job has written.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH}
_DAMAGE |= {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_TOOBIG}


def damaged(path: Path, why: str) -> ModelError:
    """The error for a job's file that another program, or a disk, has changed."""
    return ModelError(
        f"{path} is damaged: {why}",
        "move it away, or run the same command with --overwrite: everything is labelled again, and the old output "
        "stays until then",
    )


class SqliteErrors:
    """Turns the errors of SQLite into our own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UnicodeDecodeError | json.JSONDecodeError):
            raise damaged(self._path, "it contains bytes that are not text") from error
        if not isinstance(error, sqlite3.Error):
            return
        message = str(error)
        if "locked" in message:
            raise UsageError(f"{self._path} is being written by another program", "wait until it has ended") from error
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code & 0xFF in _DAMAGE:
            raise damaged(self._path, message) from error
        full = "full" in message or "disk I/O" in message
        raise OutputError(
            f"{self._path} cannot be written: {'the disk is full' if 'full' in message else message}; "
            "committed rows are kept",
            "free some space and run the same command again" if full else "choose a folder that you may write to",
        ) from error
