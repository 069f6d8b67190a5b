"""The durable job: finds the photos to label, and puts the row of each into the store once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from convnext_cli.base.errors import ConvNextError, PhotoError
from convnext_cli.jobs.photo_state import Found, state_of
from convnext_cli.jobs.store import Store
from convnext_cli.jobs.suspects import Suspects
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.rows import Row
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.listing import overlapped

COMMIT_SECONDS = 1.0  # at most this much work is done again after a kill
COMMIT_OFTEN = 0.1  # the same after a run that something has ended, which may end this one


class StopAtFailure(ConvNextError):
    """The first failure, where the user wants to stop at it (exit 1)."""

    def __init__(self, row: Row) -> None:
        assert row.error is not None
        super().__init__(
            f"stopped at {row.path}: {row.error.kind}: {row.error.message}",
            "leave --strict out to go on past failures",
        )


@dataclass
class Tally:
    """The counts of one run. photos: that the walk found. todo: of them to label. done, failed: so far."""

    photos: int = 0
    todo: int = 0
    done: int = 0
    failed: int = 0
    vanished: int = 0


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The differences between two settings, in words."""
    words = {
        "model_sha256": "weights",
        "top": "guesses (-k)",
        "min_score": "--min-score",
        "pixels": "--pixels",
        "sure": "precision of answers (--sure)",
        "sets": "coverage of sets (--sets)",
        "answer_labels": "labels of answers",
    }
    parts = []
    for name in now:
        if before.get(name) == now[name]:
            continue
        if name == "profiles":
            parts.append(f"colour profiles applied to {before.get(name)} photos → to {now[name]} photos")
            continue
        if name in ("calibration", "answer_labels") and None in (before.get(name), now[name]):
            continue  # that answers or sets are asked for, or no longer, says it all
        short = not isinstance(now[name], dict) and name not in ("model_sha256", "calibration")
        old, new = ("none" if value is None else value for value in (before.get(name), now[name]))
        parts.append(f"{words.get(name, name)} {old} → {new}" if short else words.get(name, name))
    return parts


def look(
    store: Store,
    photos: Iterable[Photo],
    roots: Iterable[str],
    settings: int,
    *,
    mixing: bool = False,
    retry_failed: bool = False,
    left_out: Callable[[str, str], bool] = lambda root, path: False,
    progress: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Walk, and note the photos that have to be labelled; nothing is decoded.

    Args:
        store: of the job.
        photos: the walk.
        roots: folders that the walk covers completely: photos of the store that it does not meet there have vanished.
        settings: their number in the store.
        mixing, retry_failed: as for ``Walk.note_all``.
        left_out: as for ``Walk.mark_vanished``.
        progress: called with the number of photos so far.
    """
    # URLs of a list have not been looked at yet, and each would be waited for
    all_found = overlapped(state_of, photos, lambda photo: photo.seen is None and is_url(photo.path))
    for seen in store.walk.note_all(all_found, settings, mixing=mixing, retry_failed=retry_failed):
        progress(seen)
    vanished = store.walk.mark_vanished(roots, left_out)
    store.commit()
    total, todo = store.walk.counts()
    return Tally(total, todo, vanished=vanished)


@dataclass
class _End:
    """All photos of a shard are on their way. aside: some of them come later."""

    shard: Found
    broken: PhotoError | None
    aside: bool = False


def run(
    store: Store,
    predictor: Predictor,
    settings: int,
    tally: Tally,
    *,
    members: Callable[[Photo], Iterator[Photo]] = lambda shard: iter((shard,)),
    mixing: bool = False,
    retry_failed: bool = False,
    strict: bool = False,
    suspects: Suspects | None = None,
    progress: Callable[[Row], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Label the photos that ``look`` noted, and commit about every second and at the end, however it ends.

    Args:
        store: of the job.
        predictor: the model.
        settings: their number in the store.
        tally: is counted up meanwhile.
        members: opens a shard.
        mixing, retry_failed: as for ``look``.
        strict: raise StopAtFailure at the first failure.
        suspects: are labelled after all others.
        progress: called with each row.
        clock: seconds.
    """
    _Run(store, predictor, settings, tally, members, mixing, retry_failed, strict, suspects, progress, clock).all()


@dataclass
class _Run:
    """One run over what is to do; the fields are the arguments of ``run``."""

    store: Store
    predictor: Predictor
    settings: int
    tally: Tally
    members: Callable[[Photo], Iterator[Photo]]
    mixing: bool
    retry_failed: bool
    strict: bool
    suspects: Suspects | None
    progress: Callable[[Row], None]
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self._underway: deque[Found | _End] = deque()
        self._unread: list[_End] = []  # shards with photos that are kept for the end
        self._last = self.clock()

    def all(self) -> None:
        """Label everything, suspects last."""
        try:
            if self.suspects is None:
                self._label(self._feed(self.store.walk.todo()))
                return
            self.suspects.begin()
            self._label(self._feed(self.store.walk.todo()))
            self._label(self._feed(iter(self.suspects.shards), again=True))
            self._label_suspects(self.suspects)
            self.suspects.tidy()
        finally:
            self.store.commit()

    def _label(self, photos: Iterator[Photo]) -> None:
        for row in self.predictor.rows(photos):
            self._close_shards()
            of = self._underway.popleft()
            assert isinstance(of, Found)
            self._keep(of, row)
            every = COMMIT_OFTEN if self.suspects is not None and self.suspects.some else COMMIT_SECONDS
            if self.clock() - self._last >= every:
                self._commit()
        self._close_shards()

    def _feed(self, todo: Iterator[Found], *, again: bool = False) -> Iterator[Photo]:
        for state in todo:
            if not again and self._is_suspect(state):
                assert self.suspects is not None
                self.suspects.set_aside(state)
            elif state.photo.shard:
                yield from self._inside(state)
            else:
                self._underway.append(state)
                yield state.photo

    def _is_suspect(self, state: Found) -> bool:
        return self.suspects is not None and self.suspects.has(state)

    def _inside(self, shard: Found) -> Iterator[Photo]:
        """What is to be labelled in a shard."""
        end = _End(shard, None)
        for photo in self._opened(shard):
            inside = shard.inside(photo)
            is_shard = photo.path == shard.photo.path
            if is_shard:
                end.broken = photo.problem
            elif not self.store.walk.note_member(
                inside, self.settings, mixing=self.mixing, retry_failed=self.retry_failed
            ):
                self.tally.photos += 1
                continue
            self.tally.photos += 1
            self.tally.todo += 1
            if not is_shard and self._is_suspect(inside):
                end.aside = True
                continue
            self._underway.append(inside.light())
            yield photo
        self._underway.append(end)

    def _opened(self, shard: Found) -> Iterator[Photo]:
        if self.suspects is None:
            return self.members(shard.photo)
        return self.suspects.members(self.members, shard)

    def _close_shards(self) -> None:
        while self._underway and isinstance(self._underway[0], _End):
            end = self._underway.popleft()
            assert isinstance(end, _End)
            if end.aside:
                self._unread.append(end)
            else:
                self._read_to_end(end)

    def _read_to_end(self, end: _End) -> None:
        self.store.walk.read_to_end(end.shard, end.broken)
        if self.suspects is not None:
            self.suspects.forget(end.shard)

    def _label_suspects(self, suspects: Suspects) -> None:
        """One after the other, each row safe before the next one begins."""
        for suspect in suspects.photos:
            self._keep(suspect, suspects.row(suspect.photo, suspect))
            self._commit()
        for end in self._unread:
            for photo in self._opened(end.shard):
                inside = end.shard.inside(photo)
                if photo.path != end.shard.photo.path and suspects.has(inside):
                    self._keep(inside.light(), suspects.row(photo, inside))
                    self._commit()
            self._read_to_end(end)

    def _keep(self, of: Found, row: Row) -> None:
        if row.path != of.photo.path:  # rows come in the order of photos; a row under another name is worst
            raise AssertionError(f"the row of {row.path!r} came for {of.photo.path!r}")
        self.store.put(of, row, self.settings)
        if self.suspects is not None:
            self.suspects.forget(of)
        self.tally.done += 1
        self.tally.failed += row.error is not None
        self.progress(row)
        if self.strict and row.error is not None:
            raise StopAtFailure(row)

    def _commit(self) -> None:
        self.store.commit()
        self._last = self.clock()
