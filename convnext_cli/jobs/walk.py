"""The photos of a walk beside the rows of a job: photos to label, photos that are labelled, vanished photos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path

from convnext_cli.base.errors import PhotoError
from convnext_cli.jobs.job_file import JobFile
from convnext_cli.jobs.photo_state import Found, file_of, key_of
from convnext_cli.photos.containers.shards import is_container
from convnext_cli.photos.photo import Photo, Shard
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.listing import Seen

_CHUNK = 512  # rows that are held in memory at once


def keys_below(key: bytes) -> tuple[bytes, bytes]:
    """Between which keys those lie that are below one."""
    return key + b"\0", key + b"\1"


class Walk:
    """The photos of the last walk. A shard is noted as a whole, and its photos when it is opened.

    Args:
        file: of the job. All methods raise what ``JobFile`` raises.
    """

    def __init__(self, file: JobFile) -> None:
        self._file = file

    def note_all(self, photos: Iterable[Found], settings: int, *, mixing: bool, retry_failed: bool) -> Iterator[int]:
        """Note all photos of a walk, and which of them have to be labelled; yields their number now and then.

        A photo has to be labelled if it is new, if its size, time or tag changed, if it failed and ``retry_failed`` is
        on, or if its row has other settings and ``mixing`` is off. A photo that is reached twice counts once.
        """
        with self._file as database:
            database.execute("DELETE FROM found")
        for number, state in enumerate(photos, 1):
            if not (state.photo.shard and self._known(state, settings, mixing=mixing, retry_failed=retry_failed)):
                self._note(state, settings, mixing=mixing, retry_failed=retry_failed)
            if number % 256 == 0:
                yield number

    def _note(self, state: Found, settings: int, *, mixing: bool, retry_failed: bool) -> bool:
        """Note one photo or shard; whether it has to be labelled, and was not noted before."""
        insert = """
            INSERT OR IGNORE INTO found SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 > 0 OR NOT EXISTS (
                SELECT 1 FROM photos WHERE key = ?1 AND size IS ?3 AND mtime_ns IS ?4 AND tag IS ?5 AND ?6 IS NULL
                AND (?9 OR settings = ?10 OR settings IN (SELECT id FROM accepted))
                AND NOT (?11 AND status = 'failed')), ?8
            RETURNING todo
        """
        problem, photo = state.photo.problem, state.photo
        what = (state.key, os.fsencode(photo.path), state.size, state.mtime_ns, state.tag)
        why = (None, None) if problem is None else (problem.kind, problem.message)
        with self._file as database:
            new = database.execute(insert, (*what, *why, photo.shard, mixing, settings, retry_failed)).fetchall()
        return bool(new and new[0][0])

    def _known(self, shard: Found, settings: int, *, mixing: bool, retry_failed: bool) -> bool:
        """Whether a shard was read to its end and nothing in it is to be done; then its photos are found with it."""
        inside, bounds = "(key = ?1 OR key > ?2 AND key < ?3) AND NOT vanished", (shard.key, *keys_below(shard.key))
        read = "SELECT 1 FROM shards WHERE key = ? AND size IS ? AND mtime_ns IS ? AND tag IS ?"
        again = f"""
            SELECT 1 FROM photos WHERE {inside} AND (
                NOT ?4 AND settings != ?5 AND settings NOT IN (SELECT id FROM accepted) OR ?6 AND status = 'failed'
            ) LIMIT 1
        """
        copy = f"""
            INSERT OR IGNORE INTO found SELECT key, coalesce(path_bytes, CAST(path AS BLOB)), size, mtime_ns, tag,
            NULL, NULL, 0, 0 FROM photos WHERE {inside}
        """
        with self._file as database:
            if database.execute(read, (shard.key, shard.size, shard.mtime_ns, shard.tag)).fetchone() is None:
                return False
            if database.execute(again, (*bounds, mixing, settings, retry_failed)).fetchone() is not None:
                return False
            database.execute(copy, bounds)
        return True

    def counts(self) -> tuple[int, int]:
        """How many photos the walk found, and how many of them are to be labelled; shards to open do not count."""
        query = "SELECT count(*), coalesce(sum(todo), 0) FROM found WHERE NOT shard"
        with self._file as database:
            total, todo = database.execute(query).fetchone()
        return total, todo

    def todo(self) -> Iterator[Found]:
        """Photos to label, and shards to open, in order."""
        query = """
            SELECT key, path, size, mtime_ns, tag, kind, message, shard FROM found
            WHERE todo AND key > ? ORDER BY key LIMIT ?
        """
        last = b""
        while True:
            with self._file as database:
                rows = database.execute(query, (last, _CHUNK)).fetchall()
            if not rows:
                return
            for key, path, size, mtime_ns, tag, kind, message, shard in rows:
                if not (isinstance(key, bytes) and isinstance(path, bytes) and key > last):
                    raise self._file.damaged("its photos are not in order")
                problem = None if kind is None else PhotoError(kind, message)
                seen = Seen(size, mtime_ns, tag)
                photo = Photo(os.fsdecode(path), problem=problem, seen=seen, shard=Shard(shard))
                yield Found(photo, size, mtime_ns, tag)
                last = key

    # photos in shards

    def note_member(self, state: Found, settings: int, *, mixing: bool, retry_failed: bool) -> bool:
        """Note a photo of a shard that is open; whether it has to be labelled. It is not among ``todo`` itself."""
        with self._file as database:
            is_todo = self._note(state, settings, mixing=mixing, retry_failed=retry_failed)
            database.execute("UPDATE found SET todo = 0 WHERE key = ?", (state.key,))
        return is_todo

    def read_to_end(self, shard: Found, broken: PhotoError | None) -> None:
        """Note that all photos of a shard have their rows; what it held before and does not hold now has vanished.

        broken: why it was not read further. Then what was found before stays. Where that was not the shard's fault it
        counts as not read, and the next run goes on with it.
        """
        if broken is not None and broken.kind == "timeout":
            return
        key, bounds = shard.key, keys_below(shard.key)
        with self._file as database:
            values = (key, shard.size, shard.mtime_ns, shard.tag)
            database.execute("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?)", values)
            if broken is not None:
                return
            before = database.total_changes
            database.execute("DELETE FROM photos WHERE key = ?", (key,))  # why it was not read before
            for vanished, where in ((1, "NOT IN"), (0, "IN")):
                database.execute(
                    f"UPDATE photos SET vanished = {vanished} WHERE vanished != {vanished} AND key > ? AND key < ? "
                    f"AND key {where} (SELECT key FROM found)",
                    bounds,
                )
            if database.total_changes > before:
                self._file.changed()

    # missing photos

    def mark_vanished(
        self, roots: Iterable[str], left_out: Callable[[str, str], bool] = lambda root, path: False
    ) -> int:
        """Mark photos at and below these paths that the walk did not find and that are not there; how many are marked.

        left_out: whether a walk from a URL passes another URL by, whatever is there. What came back, and is what it
        was, is unmarked. A row that stood for a folder which could not be listed goes.
        """
        with self._file as database:
            before = database.total_changes
            database.execute("UPDATE photos SET vanished = 0 WHERE vanished AND key IN (SELECT key FROM found)")
            for root in roots:
                low = key_of(root).rstrip(b"\0")  # of "/" too
                query = """
                    SELECT id, key, size FROM photos WHERE NOT vanished AND (key = ? OR key > ? AND key < ?)
                    AND key NOT IN (SELECT key FROM found)
                """
                for number, key, size in database.execute(query, (low, *keys_below(low))).fetchall():
                    file = file_of(key)
                    if self._is_covered(key) or (is_url(file) and left_out(root, file)):
                        continue
                    if size is None and not is_url(file) and os.path.isdir(file):  # noqa: PTH112
                        database.execute("DELETE FROM photos WHERE id = ?", (number,))
                    elif is_url(file) or not _is_there(file):
                        database.execute("UPDATE photos SET vanished = 1 WHERE id = ?", (number,))
            if database.total_changes > before:
                self._file.changed()
            return int(database.execute("SELECT count(*) FROM photos WHERE vanished").fetchone()[0])

    def _is_covered(self, key: bytes) -> bool:
        """Whether something above has yet to be opened, or could not be: then it is not known what is in it."""
        above = [key[:place] for place, sign in enumerate(key) if sign == 0 and place]
        query = "SELECT 1 FROM found WHERE key = ? AND (shard OR kind IS NOT NULL)"
        with self._file as database:
            return any(database.execute(query, (folder,)).fetchone() is not None for folder in above)

    def common_folder(self) -> str | None:
        """The deepest folder with all photos of the last walk; None if there were none."""
        with self._file as database:
            first, last = database.execute("SELECT min(key), max(key) FROM found").fetchone()
        if first is None:
            return None
        folders = [key.split(b"\0")[:-1] for key in (first, last)]  # keys between the two begin as both do
        same = takewhile(lambda parts: parts[0] == parts[1], zip(*folders, strict=False))
        return file_of(b"\0".join(part for part, _ in same)) or os.sep

    def keep_found(self) -> None:
        """Have what the last walk found outlast this connection; ``found_before`` takes it up."""
        with self._file as database:
            database.execute("DROP TABLE IF EXISTS main.last_walk")
            database.execute("CREATE TABLE main.last_walk AS SELECT * FROM temp.found")

    def found_before(self) -> None:
        """Take up what ``keep_found`` kept, if it did."""
        with self._file as database:
            kept = "SELECT 1 FROM main.sqlite_master WHERE name = 'last_walk'"
            if database.execute(kept).fetchone() is not None:
                database.execute("INSERT OR IGNORE INTO temp.found SELECT * FROM main.last_walk")
                database.execute("DROP TABLE main.last_walk")

    def forget_unseen(self) -> None:
        """Forget the rows of all photos that the last walk did not find."""
        with self._file as database:
            database.execute("DELETE FROM photos WHERE key NOT IN (SELECT key FROM found)")


def _is_there(file: str) -> bool:
    """Whether there is such a file, or a shard that may hold it and was not looked into."""
    if os.path.lexists(file):
        return True
    return any(is_container(str(above)) and above.is_file() for above in Path(file).parents)
