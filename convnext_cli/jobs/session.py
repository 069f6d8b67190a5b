"""One job while ``label`` runs: rounds of labelling, the output after each, and what else is asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from convnext_cli.base.errors import UsageError
from convnext_cli.jobs import job, output, suspects
from convnext_cli.jobs.job import Tally
from convnext_cli.jobs.listener import LabelListener, LabelResult
from convnext_cli.jobs.output_pair import Pair
from convnext_cli.jobs.photo_state import key_of, state_of
from convnext_cli.jobs.request import LabelRequest
from convnext_cli.jobs.settings_choice import choose
from convnext_cli.jobs.store import Store
from convnext_cli.jobs.view import View
from convnext_cli.jobs.watch import changes
from convnext_cli.photos.close_resize import no_kernel
from convnext_cli.photos.find import Finder
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.preprocess import FEW

FIRST_FAILURES = 10  # that a result names


@dataclass
class Session:
    """One job while it runs: a first round over everything, and under ``watch`` one for each batch of changes.

    Args:
        store: the job; the session closes it.
        opened: the predictor that the request asks for.
        finder: finds the photos.
        pair: the output and its job.
        request: what to do.
        listener: hears how it gets on.
        replaces: whether the job is going to take the place of an older pair.

    Raises:
        UsageError: the job's rows have other settings, and nobody says whether they stay.
    """

    store: Store
    opened: Predictor
    finder: Finder
    pair: Pair
    request: LabelRequest
    listener: LabelListener
    replaces: bool = False
    predictor: Predictor = field(init=False)  # whose rows are kept

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._own_key = key_of(str(self.pair.target))  # an output in its own folder may look like a shard
        self._begin()

    def _begin(self) -> None:
        """Show the rows as the request asks for, and choose the settings of new ones. Raises UsageError."""
        self.view = View.of(self.opened)
        self.settings, self.predictor, self.mixing = choose(
            self.store,
            self.opened,
            self.view,
            [self.opened.engine.card.label_set()],
            relabel=self.request.relabel or self.replaces,
            mix=self.request.mix,
            ask=self.listener.keeps,
        )
        if self.predictor.preprocessor.whole_profiles:
            self.listener.note(
                "an earlier version began this job, so colour profiles are applied before the resize; --relabel labels "
                "its photos again as new jobs do"
            )
        self.suspects = self._stack.enter_context(suspects.opened(self.store, self.predictor))
        self.predictor = self.suspects.predictor
        notes = suspects.file_beside(self.store.path)
        self._stack.enter_context(self.listener.guard(notes, self.predictor.preprocessor.timeout))

    def round(self, photos: Iterable[Photo], roots: list[str], *, is_first: bool = True) -> LabelResult:
        """Label new photos, write the output, and do what else is asked for.

        Args:
            photos: all that the job is for, or those that arrived.
            roots: paths at and below which photos that are missing have vanished.
            is_first: whether this is the round over everything.

        Raises:
            StopAtFailure: under ``strict``.
            ConvNextError: it cannot go on; what was labelled is kept.
        """
        start = time.perf_counter()
        self.listener.looking(0)
        tally = job.look(
            self.store,
            photos,
            roots,
            self.settings,
            mixing=self.mixing,
            retry_failed=self.request.retry_failed,
            left_out=self.finder.left_out,
            progress=self.listener.looking,
        )
        if tally.photos >= FEW:  # and not the number in this run, which would change where a job was resumed
            self.predictor = replace(self.predictor, preprocessor=replace(self.predictor.preprocessor, kernel_from=0))
        try:
            self.listener.labelling(tally)
            job.run(
                self.store,
                self.predictor,
                self.settings,
                tally,
                members=self.finder.members,
                mixing=self.mixing,
                retry_failed=self.request.retry_failed,
                strict=self.request.strict,
                suspects=self.suspects,
                progress=self.listener.labelled,
            )
        except job.StopAtFailure:
            self._write_part()
            raise
        except KeyboardInterrupt:
            self._write_part()
            self.listener.interrupted(tally, self.pair.target if self.replaces else None)
            raise
        self._write(tally)
        result = self._result(tally, time.perf_counter() - start)
        self.listener.round_ended(result)
        return replace(result, unfinished=self._act(result, is_first=is_first))

    def close(self) -> None:
        """Commit and close the job."""
        self._stack.close()
        if self.replaces:
            self.pair.give_up(self.store)
        else:
            self.store.close()

    def watch(self, folders: list[str]) -> LabelResult | None:
        """Label what arrives in folders, until Ctrl-C; the result of the last round, None where there was none."""
        self.listener.watching(folders)
        by_path = {os.path.abspath(folder): folder for folder in folders}  # noqa: PTH100 - surrogates
        result = None
        try:
            for paths in changes(folders, Event()):
                arrived = []
                for path in paths:
                    root = next(root for root in by_path if path.startswith(os.path.join(root, "")))  # noqa: PTH118
                    named = os.path.join(by_path[root], os.path.relpath(path, root))  # noqa: PTH118
                    arrived.append((named, by_path[root]))
                photos = [photo for path, folder in arrived for photo in self.finder.arrived(path, folder)]
                if not paths:
                    photos = self._missed(folders)
                photos = [photo for photo in photos if key_of(photo.path) != self._own_key]
                gone = [path for path, _ in arrived if not os.path.lexists(path) and self.store.knows(path)]
                if photos or gone:  # and not the output itself, for one
                    result = self.round(photos, gone, is_first=False)
        except KeyboardInterrupt:
            self.listener.stopped_watching()
        return result

    def _missed(self, folders: list[str]) -> list[Photo]:
        """Photos and shards that arrived or changed after the walk of the first round had passed them."""
        passed_over = self.finder.passed_over.copy()  # the first round has counted these
        missed = [photo for photo in self.finder.named(folders) if not self.store.is_current(state_of(photo))]
        self.finder.passed_over.clear()
        self.finder.passed_over.update(passed_over)
        return missed

    def _write_part(self) -> None:
        """Write the rows that there are, where no older output is in their place."""
        if not self.replaces:
            output.write(self.store, self.pair.target, self.pair.form)

    def _write(self, tally: Tally) -> None:
        """Write all rows to the output; a job that replaces another takes its place."""
        if not self.replaces:
            self.store.note(begun=None)
            output.write(self.store, self.pair.target, self.pair.form)
            return
        if not tally.photos:
            raise UsageError(
                f"there is no photo to label, so {self.pair.target} was not changed",
                "check the path; without --overwrite, its rows are marked as vanished",
            )
        self._stack.close()
        self.store, self.replaces = self.pair.take_over(self.store), False
        self._begin()

    def _result(self, tally: Tally, seconds: float) -> LabelResult:
        store, times = self.store, self.predictor.times
        pixels = self.predictor.preprocessor.pixels
        level = "" if pixels == "exact" else f"; pixels {pixels}"
        return LabelResult(
            output=str(self.pair.target),
            statuses=store.statuses(),
            labels=store.labels(),
            levels=store.levels(),
            failures=store.failures(),
            first_failures=tuple(store.first_failures(FIRST_FAILURES)),
            passed_over=dict(self.finder.passed_over.most_common()),
            photos=tally.photos,
            done=tally.done,
            seconds=seconds,
            limits=f"{times.limiting()} limits ({times.shares()}){level}" if tally.done else "",
            close_would_save=self._close_would_save(tally, seconds),
            temperature=self.predictor.temperature,
        )

    def _close_would_save(self, tally: Tally, seconds: float) -> float:
        preprocessor, times = self.predictor.preprocessor, self.predictor.times
        can = preprocessor.pixels == "exact" and not preprocessor.as_photos
        if not can or tally.done < FEW or times.photos_share() < 0.5 or no_kernel(preprocessor.preprocessing):
            return 0.0
        return times.close_would_save(seconds)

    def _act(self, result: LabelResult, *, is_first: bool) -> int:
        """Do what was asked for with the photos of this round; with how many of them it failed."""
        request, failed = self.request, 0
        if request.keywords is not None:
            from convnext_cli.jobs.keywords.request import write_keywords

            written = write_keywords(self.store, request.keywords)
            failed += written.counts["failed"]
            self.listener.keywords_written(written)
        if request.report is not None:
            from convnext_cli.jobs.report.request import write_report

            page, title = Path(request.report), ", ".join(request.photos.paths) or "photos"
            rate = result.done / result.seconds if result.done else None
            explained = request.predictor.model if request.explain else None
            write_report(self.store, self.predictor, page, title=title, rate=rate, explained=explained)
            self.listener.report_written(page)
        if request.sort is not None:
            failed += self._sort(is_first=is_first)
        return failed

    def _sort(self, *, is_first: bool) -> int:
        from convnext_cli.jobs.actions.request import sort_photos

        assert self.request.sort is not None
        decider = self.predictor.decider
        names = (*self.view.labels.names, *(() if decider is None else decider.groups))
        result = sort_photos(self.store, names, self.request.sort)
        if self.request.sort.dry_run:
            self.listener.sort_planned(result)
        elif is_first or result.placed or result.failed:
            self.listener.photos_sorted(result)
        return sum(result.failed.values())
