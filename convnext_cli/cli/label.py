"""``convnext label``: parse, run the durable job, and what is done with its rows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import label_actions, label_cluster, label_effect, label_view, opening, options, render

if TYPE_CHECKING:
    from convnext_cli.labelling.store import Store
    from convnext_cli.labelling.suspects import Suspects
    from convnext_cli.photos.find import Finder, Photo
    from convnext_cli.pipeline import Pipeline

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "sqlite")


@click.command(
    epilog="\b\nExamples:\n  convnext label holiday/ -o labels.jsonl\n"
    "  convnext label photos/ -o labels.sqlite --exclude '*.png' --min-score 0.5\n"
    "  convnext label photos/ -o labels.csv --sort-into sorted --mode link"
)
@click.argument("paths", nargs=-1, type=options.PathName(), metavar="FOLDER|URL...")
@click.option("-o", "--output", metavar="FILE", help="The result: .jsonl, .json, .csv, .tsv, .parquet or .sqlite.")
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), help="[default: by -o's suffix]")
@click.option("--overwrite", is_flag=True, help="Begin anew where the output is there.")
@click.option(
    "--include", multiple=True, metavar="GLOB", help="Only these files; with a / it is for paths below the folder."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not these files, and not into these folders.")
@click.option("--hidden", is_flag=True, help="Hidden files and folders too.")
@click.option("--follow", is_flag=True, help="Into linked folders too.")
@click.option("--depth", type=click.IntRange(1), help="Levels of folders to go into; 1 is the folder's own files.")
@click.option("--files-from", type=click.File("rb"), metavar="FILE", help="Read paths from a file, or - for stdin.")
@click.option("-0", "--null", is_flag=True, help="Paths of --files-from end with a NUL byte, not a line.")
@click.option("--retry-failed", is_flag=True, help="Take up again what failed before.")
@click.option("--strict", is_flag=True, help="Stop at the first failure.")
@click.option("--relabel", is_flag=True, help="Label anew what another model or other options labelled.")
@click.option("--mix", is_flag=True, help="Keep what another model or other options labelled.")
@click.option("--watch", is_flag=True, help="Then go on with what arrives in the folders, until Ctrl-C.")
@click.option("--nice", type=click.IntRange(0, 19), metavar="0-19", help="Let other programs go first.")
@label_cluster.option
@options.model
@options.answers
@options.machine
@options.preprocessing
@options.decoding
@label_actions.sorting
@label_actions.keywords
@label_actions.report
@options.verbosity("Times of each stage")
def label(**given: Any) -> int:
    """Label all photos below a folder, and lose none of them.

    FOLDER is a folder, here or behind a URL (s3://bucket/photos), a photo, a glob, or a tar or parquet file of photos.

    However a run ends, the same command goes on where it was; what is done is not done again.
    """
    render.set_quiet(given["quiet"])
    label_effect.check(given, options.typed(click.get_current_context()))
    given["paths"] = opening.places(given)
    if given["undo"]:
        return label_actions.undo(given["undo"])
    if given["cluster"] is not None:
        return _on_a_cluster(given)
    target, form = _target(given)
    label_actions.check(given, target)
    opening.check(given)
    if given["nice"] is not None and hasattr(os, "nice"):
        os.nice(given["nice"])
    with ExitStack() as stack:
        stack.enter_context(_alone(target, form))
        finder, photos = _photos(given)
        if given["verbose"] < 2:
            stack.enter_context(render.c_libraries_silenced())
        store = _store(target, form, given)
        stack.callback(store.close)
        # copies that this run or an earlier one has sorted are not photos anew
        into = [str(Path(given["sort_into"]).absolute())] if given["sort_into"] else []
        finder.skip = frozenset([*into, *(store.value("sorted") or [])])
        pipeline = opening.pipeline(given, job="throughput", prepare=True)
        stack.callback(pipeline.engine.close)
        session = _Session(store, pipeline, finder, target, form, given)
        from convnext_cli.labelling import suspects

        session.suspects = stack.enter_context(suspects.opened(store, pipeline))
        session.round(photos, _roots(given))
        if given["watch"]:
            session.watch([path for path in given["paths"] if os.path.isdir(path)])  # noqa: PTH112
        return 1 if store.statuses().get("failed") or session.failed else 0


def _on_a_cluster(given: dict[str, Any]) -> int:
    _check(given)
    label_cluster.check(given)
    opening.check(given)
    with ExitStack() as stack:
        if given["verbose"] < 2:
            stack.enter_context(render.c_libraries_silenced())
        return label_cluster.label(given, _finder(given))


@dataclass
class _Session:
    """One job while the command runs: the first round over all, and under --watch one for each batch of changes."""

    store: Store
    pipeline: Pipeline
    finder: Finder
    target: Path
    form: str
    given: dict[str, Any]

    def __post_init__(self) -> None:
        self.settings, self.mixing = _settings(self.store, self.pipeline, self.given)
        names = len(self.pipeline.labels.names)
        self.guesses = min(self.pipeline.k or names, names)
        self.suspects: Suspects | None = None
        self.failed = 0  # photos of which something else than labelling failed

    def round(self, photos: Iterable[Photo], roots: list[str], *, whole: bool = True) -> None:
        """Label what is new among the photos, write the output, tell, and do what else is asked for.

        roots: what of the store is looked for; what is not there has vanished. whole: not only what arrived.
        Raises click.exceptions.Exit under --strict.
        """
        from convnext_cli.labelling import job

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
                    self.pipeline,
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
            self.write()
            error = stopped.row.error
            assert error is not None
            render.error(
                f"stopped at {stopped.row.path}: {error.kind}: {error.message}",
                "leave --strict out to go on past failures",
            )
            raise click.exceptions.Exit(1) from None
        except KeyboardInterrupt:
            self.write()
            render.note(f"{tally.done:,} of {tally.todo:,} photos were labelled; the same command goes on from there")
            raise
        self.write()
        seconds = time.perf_counter() - start
        label_view.summary(self.store, self.pipeline, self.finder, tally, seconds, self.target)
        rate = tally.done / seconds if tally.done else None
        self.failed = label_actions.act(self.store, self.pipeline, self.given, rate, whole=whole)

    def write(self) -> None:
        """Bring the output up to what is in the store."""
        from convnext_cli.labelling import output

        output.write(self.store, self.target, self.form, self.guesses)

    def watch(self, folders: list[str]) -> None:
        """Go on with what arrives, until Ctrl-C."""
        from threading import Event

        from convnext_cli.labelling.watch import changes

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


def _check(given: dict[str, Any]) -> None:
    """Raises UsageError for what every job needs."""
    if not given["paths"] and given["files_from"] is None:
        raise click.UsageError("Name at least one folder, or --files-from FILE.")
    if given["output"] is None:
        example = "labels.jsonl" if given["cluster"] is None else "labels"
        raise click.UsageError(
            f"Name the output with -o, for example -o {example}: it is what a later run goes on from."
        )
    if given["relabel"] and given["mix"]:
        raise click.UsageError("--relabel and --mix exclude each other.")


def _target(given: dict[str, Any]) -> tuple[Path, str]:
    """The output and its format. Raises UsageError and OutputError before anything is loaded."""
    from convnext_cli.errors import OutputError, UsageError
    from convnext_cli.labelling import output
    from convnext_cli.remote.addresses import is_url, scrub

    _check(given)
    if given["output"] == "-":
        raise UsageError("a durable job needs a file", "name one with -o, or take convnext classify -r for a stream")
    if is_url(given["output"]):
        raise UsageError(
            f"{scrub(given['output'])} is a URL; without --cluster, results go into a file on this machine",
            "copy it there afterwards, or have --cluster auto write a folder there",
        )
    target = Path(given["output"])
    if target.is_dir() or (target.exists() and not target.is_file()):
        raise UsageError(f"{target} is not a file", "choose another name for the output")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"the folder of {target} does not exist", f"mkdir -p {target.parent}")
    if target.exists() and _is_image(target):
        raise UsageError(f"{target} is an image", "choose another name for the output")
    form = output.format_of(target, given["form"])
    if form == "parquet":
        options.needs("pyarrow")
    label_actions.check_places(given)
    if given["watch"]:
        options.needs("watchfiles")
        if not any(os.path.isdir(path) for path in given["paths"]):  # noqa: PTH112
            raise click.UsageError("--watch needs a folder to watch.")
    return target, form


def _is_image(path: Path) -> bool:
    from convnext_cli.photos.decode import looks_like_image

    with path.open("rb") as file:
        return looks_like_image(file.read(64))


def _photos(given: dict[str, Any]) -> tuple[Finder, Iterator[Photo]]:
    finder = _finder(given)
    named, listing = finder.named(given["paths"]), given["files_from"]
    return finder, chain(named, finder.listed(listing, null=given["null"])) if listing is not None else named


def _finder(given: dict[str, Any]) -> Finder:
    from convnext_cli.photos.find import Finder

    return Finder(
        recursive=True,
        depth=given["depth"],
        hidden=given["hidden"],
        links=given["follow"],
        include=given["include"],
        exclude=given["exclude"],
        shards="kept",
        offline=given["offline"],
    )


def _roots(given: dict[str, Any]) -> list[str]:
    """Folders of which all is seen, so that what is missing has vanished."""
    from convnext_cli.photos.shards import is_shard
    from convnext_cli.remote.addresses import is_url
    from convnext_cli.remote.listing import is_glob

    return [
        path
        for path in given["paths"]
        if (not is_glob(path) if is_url(path) else os.path.isdir(path) or is_shard(path))  # noqa: PTH112 - surrogates
    ]


@contextmanager
def _alone(target: Path, form: str) -> Iterator[None]:
    """One run at a time for an output. Raises UsageError when another one is at it."""
    from filelock import FileLock, Timeout

    from convnext_cli.errors import OutputError, UsageError
    from convnext_cli.labelling.output import store_of

    store = store_of(target, form)
    path = store.with_name(f".{store.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another run is writing {target}", "wait until it has ended, or choose another name for the output"
        ) from None
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}", "choose a folder that you may write to"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _store(target: Path, form: str, given: dict[str, Any]) -> Store:
    from convnext_cli.errors import UsageError
    from convnext_cli.labelling import output
    from convnext_cli.labelling.store import Store

    if given["overwrite"]:
        output.remove(target, form)
    path = output.store_of(target, form)
    if not path.exists() and target.exists():
        raise UsageError(
            f"{target} is there already, and {path.name}, the job behind it, is not",
            "choose another name, or replace it with --overwrite",
        )
    store = Store(path)
    try:
        output.check(store, target, form)
        if store.value("format") not in (None, form):
            raise UsageError(
                f"{target} was written as {store.value('format')}, and this would be {form}",
                f"add -f {store.value('format')}, or choose another name for the output",
            )
        store.note(format=form)
    except BaseException:
        store.close()
        raise
    return store


def _settings(store: Store, pipeline: Pipeline, given: dict[str, Any]) -> tuple[int, bool]:
    """The number of the settings now, and whether rows of others stay. Raises UsageError when that has to be said."""
    from convnext_cli.errors import UsageError
    from convnext_cli.labelling import job

    made_with = job.made_with(pipeline)
    sha256 = pipeline.engine.card.sha256
    number = store.settings(pipeline.model, sha256, made_with)
    decided = store.value("decided") or {}
    others = {other: values for other, values in store.settings_used().items() if other != number}
    if given["relabel"] or given["mix"]:
        decided = {"for": number, "mix": given["mix"]}
    elif others and decided.get("for") != number:
        now = {"model": pipeline.model, "model_sha256": sha256, **made_with}
        differs = "; ".join(job.differences(others[max(others)], now))
        decided = {"for": number, "mix": _asked(differs, UsageError)}
    elif not others:
        decided = {"for": number, "mix": False}
    store.note(decided=decided)
    store.commit()
    return number, bool(decided["mix"])


def _asked(differs: str, refusal: type[Exception]) -> bool:
    """Whether what others labelled stays; only a person can say so."""
    told = f"photos in this output were labelled otherwise: {differs}"
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise refusal(told, "--relabel labels them anew, --mix keeps them; or choose another name for the output")
    render.note(told)
    answer = click.prompt(
        "Label them [a]new, [k]eep them, or [s]top?", type=click.Choice(["a", "k", "s"]), show_choices=False, err=True
    )
    if answer == "s":
        raise click.Abort
    return bool(answer == "k")
