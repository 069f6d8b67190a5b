"""Photos that an earlier run worked on when it was ended: they come last, one by one, and may end another process only.

Whatever ends a process (a defect of a decoder, the system when memory runs out), the next run begins with the notes
that it left (``in_flight.py``). All other photos are labelled first. Then each suspect is read and decoded in another
process (``isolated_decoding.py``). One that ends that process has a row that says so; all others are labelled as ever.

Where the system ends both processes together, or the network is what ended them, nobody is left to write the row. So a
photo that was worked on alone when the program was ended is noted by the next run. From then on it may take little
memory only, so that it fails by itself where it took too much. And a photo that ends the program at once, a few times,
has its row without another try. A kill from outside has no such regularity: it hardly ever comes in those moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.threads import Budget
from convnext_cli.jobs import in_flight
from convnext_cli.jobs.isolated_decoding import Isolated
from convnext_cli.jobs.photo_state import Found, file_of, key_of
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.preprocess import Ready

if TYPE_CHECKING:
    from convnext_cli.jobs.store import Store
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.rows import Row

_DECIDES = 3  # times that the program was ended as soon as it worked on nothing but this photo
_IN_NETWORK = 2  # the same, by the network
_AT_ONCE = 1.0  # seconds
_LITTLE = 1 << 30  # bytes: more than any photo of an ordinary camera takes
_ENOUGH = "the program ended each time it worked on this photo alone, most likely because memory ran out"
_MOST = 1000  # suspects; photos that are gone since are among them
_NAMED = 5  # photos that a remark names


@dataclass
class _Record:
    """How often the program was ended while it worked on this photo alone.

    at_once: soon after it had begun. in_network: by then it was decoded. slowly: any other time.
    """

    at_once: int = 0
    in_network: int = 0
    slowly: int = 0

    def add(self, seconds: float, *, in_network: bool) -> None:
        if in_network:
            self.in_network += 1
        elif seconds < _AT_ONCE:
            self.at_once += 1
        else:
            self.slowly += 1

    @property
    def is_enough(self) -> bool:
        """Whether trying again is useless. A photo that is slow at times has a time limit, and did not crash."""
        return self.in_network >= _IN_NETWORK or (self.at_once >= _DECIDES and not self.slowly)

    @property
    def memory(self) -> int | None:
        return _LITTLE if self.at_once or self.slowly else None


class Suspects:
    """Those of one job. Kept in its file until they have their rows.

    file: of the notes that the process before left, and this one writes.
    """

    def __init__(self, store: Store, predictor: Predictor, file: Path) -> None:
        self._store, self._say_once = store, predictor.say
        notes = in_flight.read(file)
        kept = list((store.value("suspects") or {}).items())[-_MOST:]
        self._records = {path: _Record(*counts) for path, counts in kept}  # by absolute path
        for path in notes.paths:
            self._records.setdefault(file_of(key_of(path)), _Record())
        if notes.alone is not None:
            self._records[file_of(key_of(notes.alone))].add(notes.seconds, in_network=notes.in_network)
        self._paths = {key_of(path): path for path in self._records}
        if self._records:
            self._keep()
            store.commit()  # before the notes go
        if notes.paths:
            self._say(notes.paths)
        self._notes = in_flight.InFlight(file)
        # one process each: the members of a shard wait while photos among them are tried
        self._photo_process = Isolated(predictor.preprocessor, self._notes.still_alone)
        self._shard_process = Isolated(predictor.preprocessor, self._notes.still_alone)
        self.predictor = predictor.noting(self._notes)  # whose photos are noted while it works on them
        self._warm = set[tuple[int, ...]]()  # shapes that the network is ready for
        self._again: frozenset[bytes] = frozenset()
        self.photos: list[Found] = []  # those that this round has come by
        self.shards: list[Found] = []

    def _say(self, paths: tuple[str, ...]) -> None:
        named = ", ".join(paths[:_NAMED]) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")
        self._say_once(
            f"an earlier run ended while it was working on {named}; these photos come last, in a separate process"
        )

    def begin(self) -> None:
        """A round begins. What ended a process before is tried again only where it can end no other."""
        self._again = frozenset(self._store.crashed())
        self.photos, self.shards = [], []

    @property
    def some(self) -> bool:
        """Whether there are any, so that this run may be ended as well."""
        return bool(self._paths)

    def has(self, state: Found) -> bool:
        """Whether this photo or shard is one of them."""
        if not self._paths and not self._again:  # a key takes longer to make than a note
            return False
        key = state.key
        return key in self._paths or key in self._again

    def set_aside(self, state: Found) -> None:
        """Keep it for the end."""
        (self.shards if state.photo.shard else self.photos).append(state)

    def forget(self, state: Found) -> None:
        """It has its row, or is read to its end; part of the same transaction."""
        if self._paths:
            self._forget(state.key)

    def _forget(self, key: bytes) -> None:
        path = self._paths.pop(key, None)
        if path is not None:
            del self._records[path]
            self._keep()

    def tidy(self) -> None:
        """Forget those that have their rows from before: they were not asked for again."""
        for key, path in list(self._paths.items()):
            if self._store.knows(path):
                self._forget(key)

    def members(self, members: Callable[[Photo], Iterator[Photo]], shard: Found) -> Iterator[Photo]:
        """The photos in a shard, noted while it is read; of a suspect, by way of another process."""
        if self.has(shard):
            yield from self._shard_process.members(members, shard.photo)
            return
        photos = members(shard.photo)
        while True:
            slot = self._notes.begin(shard.photo.path)
            try:
                photo = next(photos, None)
            finally:
                self._notes.end(slot)
            if photo is None:
                return
            yield photo

    def row(self, photo: Photo, state: Found) -> Row:
        """The row of one of them. Nothing else must be worked on meanwhile."""
        record = self._records.get(self._paths.get(state.key, ""), _Record())
        if record.is_enough:
            ready = Ready(photo, error=PhotoError("crashed", _ENOUGH))
        else:
            ready = self._photo_process.ready(photo, self._notes.alone, record.memory)
        if ready.tensor is not None:
            self._warm_up(ready.tensor)
        with self._notes.alone(photo.path):
            (row,) = self.predictor.answer([ready], Budget(1))
        return row

    def _warm_up(self, tensor: np.ndarray) -> None:
        """Have the network compiled for one photo of this size before that is noted as worked on: it takes so long
        that kills from outside would come then, again and again, and be taken for the photo's."""
        if tensor.shape in self._warm:
            return
        self._warm.add(tensor.shape)
        noise = np.random.default_rng(0).random(tensor.shape, np.float32)
        with suppress(MemoryError):
            engine = self.predictor.engine
            compute = engine.with_features if self.predictor.reads_features else engine
            compute((255 * noise if tensor.dtype == np.uint8 else noise).astype(tensor.dtype)[None])

    def close(self) -> None:
        self._photo_process.close()
        self._shard_process.close()
        self._notes.close()

    def _keep(self) -> None:
        self._store.note(suspects={path: list(astuple(record)) for path, record in self._records.items()})


@contextmanager
def opened(store: Store, predictor: Predictor) -> Iterator[Suspects]:
    """The suspects of a job, and from now on notes for the next run, in a file beside the job's."""
    with closing(Suspects(store, predictor, file_beside(store.path))) as suspects:
        yield suspects


def file_beside(job: Path) -> Path:
    """The file of a job's notes."""
    return job.with_name(f".{job.name}.at")
