"""The job on a cluster: lists the parts that exist and those that are missing, and makes these until none is."""

from __future__ import annotations

import logging
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from json import dumps
from typing import TYPE_CHECKING

from convnext_cli import __version__
from convnext_cli.base.errors import ConvNextError, NetworkError, OutputError, UsageError
from convnext_cli.base.text import JsonObject
from convnext_cli.jobs.cluster.block import PHOTOS, Block, cut
from convnext_cli.jobs.cluster.derive import derived, kept_in, obstacles
from convnext_cli.jobs.cluster.gather import Gather
from convnext_cli.jobs.cluster.missing_blocks import distinct, waves
from convnext_cli.jobs.cluster.parts import Footer, Manifest, Name, Parts
from convnext_cli.jobs.cluster.resources import Shape
from convnext_cli.jobs.cluster.source import Source
from convnext_cli.jobs.cluster.stages import Answer, Decode, Described, Opener, Unit, columns_of, units
from convnext_cli.jobs.cluster.vanished import gone
from convnext_cli.jobs.photo_state import Found, key_of, state_of
from convnext_cli.jobs.view import Kept, View
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.preprocess import Preprocessor
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.listing import overlapped

if TYPE_CHECKING:
    import pyarrow as pa

TRIES = 3  # rounds in which nothing was gained, after which the cluster is given up
BATCH = 64  # photos that a network is handed at once
DECODING = 512 << 20  # bytes that Ray keeps for a task that decodes
_OF_ANSWERS = ("sure", "sets", "calibration", "answer_labels")  # settings that earlier releases did not have

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """walked: photos listed so far, without those in shards, which are known when they are labelled: in_shards. parts:
    that were there. done, failed: rows written by this run. listed: whether all is found."""

    walked: int = 0
    in_shards: int = 0
    parts: int = 0
    done: int = 0
    failed: int = 0
    listed: bool = False

    @property
    def found(self) -> int:
        return self.walked + self.in_shards


@dataclass
class ClusterJob:
    """One run.

    target: the folder of parts, a path or URL. shape: of the cluster, as it is now. opener, described, view,
    preprocessor: the predictor of a node, what decides its rows (as ``stages.described``), what they show, and its
    first half. folder: that relative paths begin from.
    block: photos of one, on average. overwrite: label all again; earlier parts go when that is done. tell: called with
    the progress.
    """

    source: Source
    target: str
    shape: Callable[[], Shape]
    opener: Opener
    described: Described
    view: View
    preprocessor: Preprocessor
    folder: str
    block: int = PHOTOS
    relabel: bool = False
    retry_failed: bool = False
    overwrite: bool = False
    tell: Callable[[Progress], None] = lambda _: None
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self._made_with = {"source": self.source.names, **self.described}
        # parts of earlier releases, which did not note the groups, keep their names; the labels have them too. Nor did
        # they know answers and sets
        named_by = {
            name: value
            for name, value in self._made_with.items()
            if name != "groups" and not (name in _OF_ANSWERS and value is None)
        }
        self._job = sha256(dumps(named_by, sort_keys=True).encode()).hexdigest()[:8]
        self._derivable = dict[str, Kept]()  # what earlier parts hold whose rows need no network, by their job
        self._blocks: list[tuple[Name, tuple[bytes, bytes]]] = []  # all there are, as far as they are listed
        self._closed: list[bytes] = []  # keys of folders that could not be looked into
        self._shards = set[bytes]()  # keys of those that this run reads
        self._own = key_of(f"{self.target.rstrip('/')}/x")[:-1]  # the beginning of keys of files in the target
        self._footers: dict[Name, Footer] = {}  # of parts that were read or written

    def run(self) -> Manifest:
        """Write the missing parts, and the manifest; returns its values.

        Raises UsageError when the folder holds something else, NetworkError when the cluster fails again and again, and
        what listing and writing raise.
        """
        self.parts = Parts(self.target)
        photos = self.source.photos()
        self.parts.check()
        before = set[Name]()  # what is overwritten stays, with its manifest, until all is done again
        if not self.overwrite:
            before = self._before()
            self.parts.remove_manifest()
            before |= self._derive(before)
        for wave in waves(self._listed(photos), lambda block: self._is_missing(block, before)):
            self._do(wave)
        self.tell(self.progress)
        return self._finish()

    # ------------------------------------------------------------------ parts of earlier runs

    def _before(self) -> set[Name]:
        """The files of earlier runs."""
        names = self.parts.names()
        others = {name.job: name for name in sorted(names, key=str) if name.job != self._job}
        for name, footer in self.parts.footers(others.values()):
            self._allow(footer.made_with, name.job)
        if self.retry_failed:
            self._footers |= dict(self.parts.footers(name for name in names if name.job == self._job))
        return names

    def _allow(self, other: JsonObject, job_name: str) -> None:
        """Refuse parts of another source, and those whose rows have to be labelled again."""
        if other.get("source") != self.source.names:
            raise UsageError(
                f"{self.parts.target} holds the labels of {', '.join(other.get('source', []))}",
                "name another folder with -o, or start again there with --overwrite",
            )
        if self.relabel:
            return
        differs = obstacles(other, self._made_with, self.view)
        kept = kept_in(other, self._made_with, self.view)
        if differs or kept is None:
            raise UsageError(
                f"photos in this output were labelled with other settings: {'; '.join(differs)}",
                "label them again with --relabel, or name another folder with -o",
            )
        self._derivable[job_name] = kept

    def _derive(self, names: set[Name]) -> set[Name]:
        """Write parts again whose rows need no network; the new files. The old ones stay until all is done."""
        written = set[Name]()
        for name in sorted(names, key=str):
            new = Name(name.kind, self._job, name.block)
            kept = self._derivable.get(name.job)
            if kept is None or new in names or new in written:
                continue
            try:
                table = derived(self.parts.read(name), self.view, kept, self.described["model"])
            except (IndexError, KeyError, TypeError, ValueError) as error:
                raise OutputError(
                    f"{self.parts.target}/{name} is damaged: {error}", "remove it, and give the same command again"
                ) from error
            footer = self.parts.write(new, table, self._made_with)
            if self.retry_failed:
                self._footers[new] = footer
            written.add(new)
        return written

    def _listed(self, photos: Iterable[Photo]) -> Iterator[Block]:
        listed: Iterable[Found] = overlapped(state_of, photos, lambda p: p.seen is None and is_url(p.path))
        if self.source.may_repeat:
            listed = distinct(listed)
        for block in cut(self._counted(listed), self.block):
            self._blocks.append((self._name(block), block.reach))
            yield block
        self.progress.listed = True

    def _counted(self, photos: Iterable[Found]) -> Iterator[Found]:
        for number, state in enumerate(photos, 1):
            if state.key.startswith(self._own):  # a target in its source: its parts look like shards
                continue
            if state.photo.problem is not None:
                self._closed.append(state.key)
            if state.photo.shard:
                self._shards.add(state.key)
            else:
                self.progress.walked += 1
            if number % 1000 == 0:
                self.tell(self.progress)
            yield state

    def _name(self, block: Block) -> Name:
        return Name("part", self._job, block.name)

    def _is_missing(self, block: Block, before: set[Name]) -> bool:
        name = self._name(block)
        known = self._footers.get(name)
        missing = name not in before or (known is not None and bool(known.failures))
        self.progress.parts += not missing
        return missing

    # ------------------------------------------------------------------ doing it

    def _do(self, blocks: list[Block]) -> None:
        """Write the parts of blocks. What a dying node took along is done again."""
        from ray.exceptions import RayError

        left, vain = {block.name: block for block in blocks}, 0
        while left:
            before = len(left)
            last: Exception = RuntimeError("rows were lost")
            try:
                for name, table, passed_over in self._rows(list(left.values())):
                    self._keep(left.pop(name), table)
                    self.source.finder.passed_over.update(passed_over)
            except RayError as error:
                if (cause := cause_of(error)) is not None:
                    raise cause from error
                log.info("Ray gave up a round: %s", error)
                last = error
            vain = 0 if len(left) < before else vain + 1
            if left and vain == TRIES:
                lines = str(last).strip().splitlines() or [type(last).__name__]
                raise NetworkError(
                    f"the cluster fails again and again: {lines[-1]}",
                    "look at its dashboard; run the same command again to resume",
                ) from last

    def _rows(self, blocks: list[Block]) -> Iterator[tuple[str, pa.Table, Counter[str]]]:
        """Complete blocks as they arrive, and how many of their files were skipped, by type."""
        parts = [unit for block in blocks for unit in units(block)]
        gather = Gather(Counter(unit.block for unit in parts), columns_of(self.described))
        for table in self._tables(parts):
            yield from gather.add(table)

    def _tables(self, parts: list[Unit]) -> Iterator[pa.Table]:
        """What ``Answer`` says of each unit, by Ray Data."""
        import ray.data

        shape = self.shape()
        data = ray.data.from_items(
            [{"unit": pickle.dumps(unit)} for unit in parts], override_num_blocks=len(parts)
        ).map_batches(
            Decode(self.preprocessor, self.source.finder, self.folder).__call__,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=shape.decode,
            memory=DECODING,  # and stages that differ in what they need are not made one
        )
        data = data.map_batches(
            Answer,
            fn_constructor_args=(self.opener, shape.threads, self.described),
            batch_size=BATCH,
            batch_format="pyarrow",
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            compute=ray.data.ActorPoolStrategy(size=min(shape.networks, len(parts))),
        )
        yield from data.iter_batches(batch_size=None, batch_format="pyarrow")

    def _keep(self, block: Block, table: pa.Table) -> None:
        name = self._name(block)
        footer = self._footers[name] = self.parts.write(name, table, self._made_with)
        self.progress.done += footer.rows
        self.progress.in_shards += footer.rows * bool(block.photos[0].photo.shard)
        self.progress.failed += footer.statuses.get("failed", 0)
        self.tell(self.progress)

    # ------------------------------------------------------------------ the end

    def _stays(self, path: str) -> bool:
        """Whether a photo that was not found is there, or may be: this run had other ideas of what to take."""
        if is_url(path):
            return any(self.source.finder.left_out(root, path) for root in self.source.paths)
        return os.path.lexists(os.path.join(self.folder, path)) or self._is_in_other_shard(path)  # noqa: PTH118 - surrogates

    def _is_in_other_shard(self, path: str) -> bool:
        """Whether a photo is one of a shard that is there, but was not read by this run."""
        above = os.path.dirname(path)  # noqa: PTH120 - surrogates
        while above and not (exists := os.path.isfile(os.path.join(self.folder, above))):  # noqa: PTH113, PTH118
            if above == (above := os.path.dirname(above)):  # noqa: PTH120
                return False
        return bool(above) and exists and key_of(above) not in self._shards

    def _finish(self) -> Manifest:
        """Keep what is said of photos that are gone, take old files away, and say that all is done."""
        current = dict(self._blocks)
        old = self.parts.names() - current.keys()
        rest, table = None, None
        if not self.overwrite:
            rest, table = gone(
                self.parts, old, current, self._closed, self._stays, self._job, columns_of(self.described)
            )
        if rest is not None and rest not in old:
            self._footers[rest] = self.parts.write(rest, table, self._made_with)
        self.parts.remove(old - {rest})
        self.parts.tidy()
        names = [*current, *([rest] if rest is not None else [])]
        self._footers |= dict(self.parts.footers(name for name in names if name not in self._footers))
        footers = [self._footers[name] for name in names]
        statuses, failures = Counter[str](), Counter[str]()
        for footer in footers:
            statuses.update(footer.statuses)
            failures.update(footer.failures)
        manifest: Manifest = {
            "convnext": __version__,
            "made_with": self._made_with,
            "rows": sum(footer.rows for footer in footers),
            "statuses": dict(sorted(statuses.items())),
            "failures": dict(failures.most_common()),
            "parts": [{"name": str(name), "rows": footer.rows} for name, footer in zip(names, footers, strict=True)],
        }
        self.parts.write_manifest(manifest)
        return manifest


def cause_of(error: BaseException) -> ConvNextError | None:
    """The error that a user can do something about, if that is the cause of one that Ray raised."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConvNextError):
            return seen
        inner = getattr(seen, "cause", None)
        seen = inner if isinstance(inner, BaseException) and inner is not seen else seen.__cause__
    return None
