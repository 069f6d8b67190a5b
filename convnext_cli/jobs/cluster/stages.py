"""The two stages of the job as Ray Data runs them: units of photos to tensors, and tensors to rows.

Arrow tables go from one to the other. A unit ends with a line that counts its rows, so that ``gather`` knows when a
block is complete.
"""

from __future__ import annotations

import json
import math
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convnext_cli.base.errors import ModelError, PhotoError
from convnext_cli.base.threads import Budget
from convnext_cli.jobs import job
from convnext_cli.jobs.cluster.block import Block
from convnext_cli.jobs.cluster.derive import digest_of_groups
from convnext_cli.jobs.settings import Network, network_of
from convnext_cli.jobs.view import name_of
from convnext_cli.photos.find import Finder
from convnext_cli.photos.photo import Photo
from convnext_cli.photos.pillow_warnings import quiet_pillow
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.preprocess import Preprocessor, Ready
from convnext_cli.predict.writers import Columns, arrow_schema, arrow_table
from convnext_cli.storage.addresses import is_url

if TYPE_CHECKING:
    import pyarrow as pa

PHOTOS = 128  # of a unit: what a task reads and decodes
HANDED_ON = 32  # photos whose tensors go on together
Opener = Callable[[int | None], Predictor]  # from processor threads to a pipeline, on whatever node


@dataclass(frozen=True)
class Unit:
    """A task's share of a block. number: among those of its block. photos: or a shard."""

    block: str
    number: int
    photos: tuple[Photo, ...]


def units(block: Block) -> list[Unit]:
    """The parts in which a block is worked on."""
    photos = [state.photo for state in block.photos]
    count = math.ceil(len(photos) / PHOTOS)
    return [Unit(block.name, n, tuple(photos[n * PHOTOS : (n + 1) * PHOTOS])) for n in range(count)]


@dataclass(frozen=True)
class Decode:
    """The first stage. preparation: how photos become tensors. finder: opens shards. folder: that paths begin from."""

    preprocessor: Preprocessor
    finder: Finder
    folder: str

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Tables of tensors for a table with the column ``unit``."""
        quiet_pillow()  # the process is Ray's, for this alone
        for packed in table["unit"].to_pylist():
            yield from self._unit(pickle.loads(packed))  # our own, from the same job

    def _unit(self, unit: Unit) -> Iterator[pa.Table]:
        named: deque[str] = deque()  # as the user typed them, for what is on its way

        def photos() -> Iterator[Photo]:
            for photo in unit.photos:
                path = photo.path if is_url(photo.path) else os.path.join(self.folder, photo.path)  # noqa: PTH118
                placed = Photo(path, problem=photo.problem, seen=photo.seen, shard=photo.shard)
                for member in self.finder.members(placed) if photo.shard else (placed,):
                    named.append(photo.path + member.path[len(path) :])
                    yield member

        before = self.finder.passed_over.copy()  # by this process, which may have had other units
        count, kept = 0, list[dict[str, object]]()
        for ready in self.preprocessor.prepared(photos(), Budget(self.preprocessor.workers), HANDED_ON):
            kept.append({**_of_unit(unit), "place": count, **_of_photo(ready, named.popleft())})
            count += 1
            if len(kept) == HANDED_ON:
                yield _table(kept)
                kept = []
        passed_over = json.dumps(self.finder.passed_over - before)
        yield _table([*kept, {**_of_unit(unit), "rows": count, "passed_over": passed_over}])


def _of_unit(unit: Unit) -> dict[str, object]:
    return {"block": unit.block, "unit": unit.number}


def _of_photo(ready: Ready, path: str) -> dict[str, object]:
    tensor, error = ready.tensor, ready.error
    return {
        "path": os.fsencode(path),
        "width": ready.width,
        "height": ready.height,
        "tensor": None if tensor is None else np.ascontiguousarray(tensor).data.cast("B"),
        "shape": None if tensor is None else tensor.shape,
        "type": None if tensor is None else tensor.dtype.str,
        "kind": error and error.kind,
        "message": error and error.message,
    }


def _place_fields() -> list[tuple[str, pa.DataType]]:
    """The columns that place a row in its block: unit and place. The last line of a unit has the number of its rows,
    and as JSON the files of a shard that were skipped, by type."""
    import pyarrow as pa

    numbers = ("unit", "place", "rows")
    return [("block", pa.string()), *((name, pa.int32()) for name in numbers), ("passed_over", pa.string())]


def _table(values: list[dict[str, object]]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema(
        [
            *_place_fields(),
            ("path", pa.binary()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("tensor", pa.large_binary()),
            ("shape", pa.list_(pa.int32())),
            ("type", pa.string()),
            ("kind", pa.string()),
            ("message", pa.string()),
        ]
    )
    return pa.Table.from_pylist(values, schema=schema)


class Answer:
    """The second stage: one for each GPU or group of processors, with the network loaded once.

    opener, threads: makes the pipeline. expected: what the rows of the job are made with.
    Raises ModelError when this node would make them with something else, and what opening raises.
    """

    def __init__(self, opener: Opener, threads: int | None, expected: Described) -> None:
        self.predictor = opener(threads)
        self._columns = columns_of(expected)
        self._budget = Budget(1)
        own = described(self.predictor)
        if own != expected:
            differs = "; ".join(job.differences(expected, own))
            raise ModelError(
                f"a node of the cluster would label with other settings: {differs}",
                "have the same files and the same release of this program on every node",
            )

    def __call__(self, table: pa.Table) -> pa.Table:
        """A table of rows, with where they stand, for one of tensors."""
        import pyarrow as pa
        import pyarrow.compute as pc

        is_row = pc.is_valid(table["place"])
        rows, ends = table.filter(is_row), table.filter(pc.invert(is_row))
        answers = arrow_table(list(self.predictor.answer(list(_ready(rows)), self._budget)), self._columns)
        where = [name for name, _ in _place_fields()]
        for name in where:
            answers = answers.append_column(name, rows[name])
        more = ends.select(where)
        for field in arrow_schema(self._columns):
            more = more.append_column(field, pa.nulls(len(ends), field.type))
        return pa.concat_tables([answers, more.select(answers.column_names)])


def _ready(table: pa.Table) -> Iterable[Ready]:
    """The photos of a table, as the first stage left them."""
    tensors = (cell.as_buffer() for chunk in table["tensor"].chunks for cell in chunk)
    plain = table.drop_columns(["tensor"]).to_pylist()
    for values, buffer in zip(plain, tensors, strict=True):
        tensor = None
        if buffer is not None:
            tensor = np.frombuffer(buffer, values["type"]).reshape(values["shape"])
        error = None if values["kind"] is None else PhotoError(values["kind"], values["message"])
        yield Ready(Photo(os.fsdecode(values["path"])), values["width"], values["height"], tensor, error)


class Described(Network):
    """All settings that a row depends on, as JSON."""

    model: str
    model_sha256: str
    labels: str
    top: int
    min_score: float | None
    floors: dict[str, float]
    groups: str | None


def described(predictor: Predictor) -> Described:
    """All settings that a row depends on."""
    return {
        "model": predictor.model,
        "model_sha256": predictor.engine.card.sha256,
        **network_of(predictor),
        "labels": name_of(predictor.labels),
        "top": predictor.k,
        "min_score": predictor.min_score,
        "floors": dict(predictor.floors),
        "groups": digest_of_groups(predictor.labels),
    }


def columns_of(described: Described) -> Columns:
    """What rows of these settings have columns for."""
    return Columns(0, answer=described["sure"] is not None, labels=described["sets"] is not None)
