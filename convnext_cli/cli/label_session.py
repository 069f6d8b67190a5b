"""One job while ``convnext label`` runs: rounds of labelling, the output after each, and what else is asked for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import label_actions, label_view, render

if TYPE_CHECKING:
    from convnext_cli.jobs.job import Tally
    from convnext_cli.jobs.output_pair import Pair
    from convnext_cli.jobs.store import Store
    from convnext_cli.photos.find import Finder, Photo
    from convnext_cli.predict.predictor import Predictor


@dataclass
class Session:
    """One job while the command runs: the first round over all, and under --watch one for each batch of changes."""

    store: Store
    opened: Predictor  # as the options ask for it
    finder: Finder
    pair: Pair
    given: dict[str, Any]
    replaces: bool = False  # whether the job is going to take the place of an older pair
    predictor: Predictor = field(init=False)  # whose rows are kept
    failed: int = field(default=0, init=False)  # photos of which something else than labelling failed

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._begin()

    def _begin(self) -> None:
        """Show what the options ask for, and choose what new rows are made with. Raises UsageError."""
        from convnext_cli.cli import witness
        from convnext_cli.jobs import suspects
        from convnext_cli.jobs.settings_choice import choose
        from convnext_cli.jobs.view import View

        self.view = View.of(self.opened)
        self.settings, self.predictor, self.mixing = choose(
            self.store,
            self.opened,
            self.view,
            [self.opened.engine.card.label_set()],
            relabel=self.given["relabel"] or self.replaces,
            mix=self.given["mix"],
            ask=_asked,
        )
        self.suspects = self._stack.enter_context(suspects.opened(self.store, self.predictor))
        self.predictor = self.suspects.predictor
        notes = suspects.file_beside(self.store.path)
        self._stack.enter_context(witness.watching(notes, "label", self.predictor.preprocessor.timeout))

    def round(self, photos: Iterable[Photo], roots: list[str], *, whole: bool = True) -> None:
        """Label what is new among the photos, write the output, tell, and do what else is asked for.

        roots: what of the store is looked for; what is not there has vanished. whole: not only what arrived.
        Raises click.exceptions.Exit under --strict.
        """
        from convnext_cli.jobs import job

        start = time.perf_counter()
        with label_view.looking() as progress:
            tally = job.look(
                self.store,
                photos,
                roots,
                self.settings,
                mixing=self.mixing,
                retry_failed=self.given["retry_failed"],
                left_out=self.finder.left_out,
                progress=progress,
            )
        try:
            with label_view.labelling(tally) as tell:
                job.run(
                    self.store,
                    self.predictor,
                    self.settings,
                    tally,
                    members=self.finder.members,
                    mixing=self.mixing,
                    retry_failed=self.given["retry_failed"],
                    strict=self.given["strict"],
                    suspects=self.suspects,
                    progress=tell,
                )
        except job.StopAtFailure as stopped:
            self._write_part()
            error = stopped.row.error
            assert error is not None
            render.error(
                f"stopped at {stopped.row.path}: {error.kind}: {error.message}",
                "leave --strict out to go on past failures",
            )
            raise click.exceptions.Exit(1) from None
        except KeyboardInterrupt:
            self._write_part()
            stays = f"; {self.pair.target} stays as it was until all are" if self.replaces else ""
            render.note(
                f"{tally.done:,} of {tally.todo:,} photos were labelled{stays}; the same command goes on from there"
            )
            raise
        self._write(tally)
        seconds = time.perf_counter() - start
        label_view.summary(self.store, self.predictor, self.finder, tally, seconds, self.pair.target)
        rate = tally.done / seconds if tally.done else None
        self.failed = label_actions.act(self.store, self.predictor, self.view, self.given, rate, whole=whole)

    def close(self) -> None:
        """Commit and close the job."""
        self._stack.close()
        if self.replaces:
            self.pair.give_up(self.store)
        else:
            self.store.close()

    def _write_part(self) -> None:
        """Write what there is, where no older output is in its place."""
        from convnext_cli.jobs import output

        if not self.replaces:
            output.write(self.store, self.pair.target, self.pair.form)

    def _write(self, tally: Tally) -> None:
        """Bring the output up to what is in the store; a job that replaces another takes its place."""
        from convnext_cli.base.errors import UsageError
        from convnext_cli.jobs import output

        if not self.replaces:
            self.store.note(begun=None)
            output.write(self.store, self.pair.target, self.pair.form)
            return
        if not tally.found:
            raise UsageError(
                f"there is no photo to label, and {self.pair.target} stays as it was",
                "check the path; without --overwrite, its rows become vanished ones",
            )
        self._stack.close()
        self.store, self.replaces = self.pair.take_over(self.store), False
        self._begin()

    def watch(self, folders: list[str]) -> None:
        """Go on with what arrives, until Ctrl-C."""
        from threading import Event

        from convnext_cli.jobs.watch import changes

        render.note(f"watching {', '.join(folders)}; Ctrl-C ends it")
        whole = {os.path.abspath(folder): folder for folder in folders}  # noqa: PTH100
        try:
            for paths in changes(folders, Event()):
                arrived = []
                for path in paths:
                    root = next(root for root in whole if path.startswith(os.path.join(root, "")))  # noqa: PTH118
                    named = os.path.join(whole[root], os.path.relpath(path, root))  # noqa: PTH118
                    arrived.append((named, whole[root]))
                photos = [photo for path, folder in arrived for photo in self.finder.arrived(path, folder)]
                gone = [path for path, _ in arrived if not os.path.lexists(path) and self.store.knows(path)]
                if photos or gone:  # and not the output itself, for one
                    self.round(photos, gone, whole=False)
        except KeyboardInterrupt:
            render.note("stopped watching")


def _asked(differs: str) -> bool:
    """Whether rows that others made stay; only a person can say so. Raises UsageError where there is none."""
    from convnext_cli.base.errors import UsageError

    message = f"photos in this output were labelled otherwise: {differs}"
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            message, "--relabel labels them again, --mix keeps them; or choose another name for the output"
        )
    render.note(message)
    answer = click.prompt(
        "Label them [a]gain, [k]eep them, or [s]top?", type=click.Choice(["a", "k", "s"]), show_choices=False, err=True
    )
    if answer == "s":
        raise click.Abort
    return bool(answer == "k")
