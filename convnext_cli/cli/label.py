"""``convnext label``: parse, run the durable job, and what is done with its rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import (
    demonstration,
    label_actions,
    label_cluster,
    label_effect,
    label_session,
    label_view,
    model_options,
    options,
    render,
)

if TYPE_CHECKING:
    from convnext_cli.jobs.output_pair import Pair
    from convnext_cli.jobs.store import Store
    from convnext_cli.photos.find import Finder, Photo
    from convnext_cli.predict.predictor import Predictor

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "sqlite")


@click.command(
    epilog="\b\nExamples:\n  convnext label holiday/\n"
    "  convnext label photos/ -o labels.sqlite --exclude '*.png' --min-score 0.5\n"
    "  convnext label photos/ -o labels.csv --sort-into sorted --mode link"
)
@click.argument("paths", nargs=-1, type=options.PathName(), metavar="FOLDER|URL...")
@click.option(
    "-o",
    "--output",
    type=options.PathName(),
    metavar="FILE",
    help="The result: .jsonl, .json, .csv, .tsv, .parquet or .sqlite.  [default: FOLDER-labels.csv]",
)
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), help="[default: by -o's suffix]")
@click.option(
    "--overwrite", is_flag=True, help="Label all again; the output that is there stays until the new one is complete."
)
@click.option(
    "--rewrite", is_flag=True, help="Write an output that was changed again from its job, also without FOLDER."
)
@click.option(
    "--include", multiple=True, metavar="GLOB", help="Only these files; with a / it is for paths below the folder."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not these files, and not into these folders.")
@click.option("--hidden", is_flag=True, help="Hidden files and folders too.")
@click.option("--follow", is_flag=True, help="Into linked folders too.")
@click.option("--depth", type=click.IntRange(1), help="Levels of folders to go into; 1 is the folder's own files.")
@click.option("-r", "--recursive", is_flag=True, hidden=True, expose_value=False)  # as `classify` has it
@click.option("--files-from", type=click.File("rb"), metavar="FILE", help="Read paths from a file, or - for stdin.")
@click.option("-0", "--null", is_flag=True, help="Paths of --files-from end with a NUL byte, not a line.")
@click.option("--retry-failed", is_flag=True, help="Take up again what failed before.")
@click.option("--strict", is_flag=True, help="Stop at the first failure.")
@click.option("--relabel", is_flag=True, help="Label again what another model or other options labelled.")
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
@label_actions.yes
@label_actions.report
@options.verbosity("Times of each stage")
def label(**given: Any) -> int:
    """Label all photos below a folder, and lose none of them.

    FOLDER is a folder, here or behind a URL (s3://bucket/photos), a photo, a glob, or a zip, tar or parquet file
    of photos.

    However a run ends, the same command goes on where it was; what is done is not done again.
    """
    render.set_quiet(given["quiet"])
    label_effect.check(given, options.typed(click.get_current_context()))
    given["paths"] = model_options.places(given)
    if given["undo"]:
        return label_actions.undo(given["undo"])
    if given["cluster"] is not None:
        return _on_a_cluster(given)
    is_named = given["output"] is not None
    target, form = _target(given)
    label_actions.check(given, target)
    model_options.check(given)
    if given["nice"] is not None and hasattr(os, "nice"):
        os.nice(given["nice"])
    from convnext_cli.jobs.output_pair import Pair

    with ExitStack() as stack:
        pair = Pair(target, form)
        stack.enter_context(_alone(pair))
        pair.tidy()
        if given["rewrite"] and not _names_photos(given):
            return _rewrite(pair)
        finder, photos = _photos(given)
        if given["verbose"] < 2:
            stack.enter_context(render.c_libraries_silenced())
        # what cannot be done is refused before there is a new job, and before an old one is touched
        earlier = None if given["overwrite"] else pair.existing(rewrite=given["rewrite"])
        if earlier is not None:
            stack.callback(earlier.close)
        if not is_named and earlier is not None:
            _refuse_other_source(earlier, pair, given)
        introduced = demonstration.confirm(given)
        predictor = model_options.predictor(given, job="throughput", prepare=True)
        stack.callback(predictor.engine.close)
        session = _session(pair, earlier, predictor, finder, given)
        stack.callback(session.close)
        if not is_named:
            session.store.note(source=_source(given))
        session.round(photos, _roots(given))
        if not introduced:
            demonstration.introduce(given["model"])
        if given["watch"]:
            session.watch([path for path in given["paths"] if os.path.isdir(path)])  # noqa: PTH112
        return 1 if session.store.statuses().get("failed") or session.failed else 0


def _source(given: dict[str, Any]) -> str:
    """What an output that was not named is named after."""
    from convnext_cli.storage.addresses import is_url, scrub

    (path,) = given["paths"]
    return scrub(path) if is_url(path) else os.path.abspath(path)  # noqa: PTH100 - surrogates


def _refuse_other_source(store: Store, pair: Pair, given: dict[str, Any]) -> None:
    """Raises UsageError for an output of that name that another folder of the same name has."""
    from convnext_cli.base.errors import UsageError

    other = store.value("source")
    if other not in (None, _source(given)):
        raise UsageError(f"{pair.target} has the labels of {other}", "name another output with -o")


def _rewrite(pair: Pair) -> int:
    """The exit status of --rewrite without photos."""
    store = pair.rewrite()
    try:
        rows = label_view.counted(sum(store.statuses().values()), "row")
        render.note(f"{pair.target}: {rows}, written again from {pair.job.name}")
    finally:
        store.close()
    return 0


def _session(
    pair: Pair, earlier: Store | None, predictor: Predictor, finder: Finder, given: dict[str, Any]
) -> label_session.Session:
    """The job of this run: an earlier one, a new one, or one that takes the place of an earlier one."""
    store, replaces = earlier, False
    if given["overwrite"]:
        store = pair.interrupted()
        replaces = store is None and pair.is_there
    if store is None:
        store = pair.unfinished() if replaces else pair.first(overwrite=given["overwrite"])
    try:
        # copies that this run or an earlier one has sorted are not photos to label again
        into = [str(Path(given["sort_into"]).absolute())] if given["sort_into"] else []
        finder.skip = frozenset([*into, *(store.value("sorted") or [])])
        return label_session.Session(store, predictor, finder, pair, given, replaces=replaces)
    except BaseException:
        store.close()
        raise


def _on_a_cluster(given: dict[str, Any]) -> int:
    _check(given)
    label_cluster.check(given)
    model_options.check(given)
    with ExitStack() as stack:
        if given["verbose"] < 2:
            stack.enter_context(render.c_libraries_silenced())
        return label_cluster.label(given, _finder(given))


def _names_photos(given: dict[str, Any]) -> bool:
    return bool(given["paths"]) or given["files_from"] is not None


def _check(given: dict[str, Any]) -> None:
    """Raises UsageError for what every job needs."""
    if given["rewrite"] and given["overwrite"]:
        raise click.UsageError("--rewrite and --overwrite exclude each other.")
    if not _names_photos(given) and not given["rewrite"]:
        raise click.UsageError("Name at least one folder, or --files-from FILE.")
    if given["output"] is None and given["cluster"] is None:
        given["output"] = _default_output(given)
    if given["output"] is None:
        example = "labels.jsonl" if given["cluster"] is None else "labels"
        raise click.UsageError(
            f"Name the output with -o, for example -o {example}: it is what a later run goes on from."
        )
    if given["overwrite"] and given["mix"]:
        raise click.UsageError("--overwrite labels all again, and --mix keeps what is there: leave one of them out.")
    if given["overwrite"] and given["relabel"]:
        raise click.UsageError("--overwrite labels all again: leave --relabel out.")
    if given["relabel"] and given["mix"]:
        raise click.UsageError("--relabel and --mix exclude each other.")


def _default_output(given: dict[str, Any]) -> str | None:
    """FOLDER-labels.csv in the current folder; None where it would have no plain name, or lie among the photos."""
    import glob

    from convnext_cli.storage.addresses import is_url

    if len(given["paths"]) != 1 or given["files_from"] is not None:
        return None
    (path,) = given["paths"]
    if is_url(path):
        name = path.partition("://")[2].partition("?")[0].rstrip("/").rpartition("/")[2]
    elif os.path.isdir(path):  # noqa: PTH112 - surrogates
        folder, here = os.path.realpath(path), os.path.realpath(".")
        if os.path.commonpath([folder, here]) == folder:  # nothing is written beside photos without being asked
            return None
        name = os.path.basename(folder)  # noqa: PTH119
    else:
        name = os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122
    if not name or (glob.has_magic(name) and not os.path.lexists(path)):
        return None
    return f"{name}-labels.{given['form'] or 'csv'}"


def _target(given: dict[str, Any]) -> tuple[Path, str]:
    """The output and its format. Raises UsageError and OutputError before anything is loaded."""
    from convnext_cli.base.errors import OutputError, UsageError
    from convnext_cli.jobs import output
    from convnext_cli.storage.addresses import is_url, scrub

    is_named = given["output"] is not None
    _check(given)
    if not is_named:
        render.note(f"labels go into {given['output']} (-o FILE names another file)")
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
    from convnext_cli.photos.containers.shards import is_container
    from convnext_cli.storage.addresses import is_url
    from convnext_cli.storage.listing import is_glob

    return [
        path
        for path in given["paths"]
        if (not is_glob(path) if is_url(path) else os.path.isdir(path) or is_container(path))  # noqa: PTH112 - surrogates
    ]


@contextmanager
def _alone(pair: Pair) -> Iterator[None]:
    """One run at a time for an output. Raises UsageError when another one is at it."""
    from filelock import FileLock, Timeout

    from convnext_cli.base.errors import OutputError, UsageError

    target = pair.target
    path = pair.job.with_name(f".{pair.job.name}.lock")
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
