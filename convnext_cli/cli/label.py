"""``convnext label``: parse, run the durable job, and draw it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convnext_cli.cli import model_options, options, render
from convnext_cli.predict import writers

if TYPE_CHECKING:
    from convnext_cli.jobs.actions.request import SortRequest
    from convnext_cli.jobs.actions.sort import By
    from convnext_cli.jobs.actions.undo import Mode
    from convnext_cli.jobs.keywords.request import KeywordsRequest, Place
    from convnext_cli.jobs.keywords.xmp import Naming
    from convnext_cli.predict.options import PredictorOptions

_SORT_OPTIONS = ("by", "mode", "dry_run")
_KEYWORD_OPTIONS = ("xmp_naming", "xmp_root", "no_xmp_tree", "xmp_remove")
_REWRITE_OPTIONS = {"rewrite", "output", "form", "quiet", "verbose"}  # that go with --rewrite without photos

_sorting = options.together(
    click.option(
        "--sort-into",
        type=options.PathName(),
        metavar="DIR",
        help="Sort the photos into DIR, into one folder for each label.",
    ),
    click.option(
        "--by",
        type=click.Choice(["label", "id"]),
        default="label",
        show_default=True,
        help="Name the folders after labels or WordNet ids.",
    ),
    click.option(
        "--mode",
        type=click.Choice(["copy", "link", "hardlink", "move"]),
        default="copy",
        show_default=True,
        help="How to put photos into the folders.",
    ),
    click.option("--dry-run", is_flag=True, help="Print what --sort-into would do, but leave the photos alone."),
    click.option("--undo", type=options.PathName(), metavar="LOG", help="Undo the sort that wrote this log."),
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask before the bundled model sorts or writes keywords.")
_keywords = options.together(
    click.option(
        "--xmp",
        type=click.Choice(["sidecar", "embed"]),
        help="Write labels as keywords, beside the photos or into them.",
    ),
    click.option(
        "--xmp-naming",
        type=click.Choice(["append", "replace"]),
        default="append",
        show_default=True,
        help="Name sidecars photo.jpg.xmp or photo.xmp.",
    ),
    click.option("--xmp-root", default="AI", show_default=True, metavar="NAME", help="Root of the tree of keywords."),
    click.option("--no-xmp-tree", is_flag=True, help="Write only flat keywords."),
    click.option("--xmp-remove", is_flag=True, help="Remove the keywords that earlier runs wrote."),
)
_report = options.together(
    click.option("--report", type=options.PathName(), metavar="FILE.html", help="Write an HTML page with thumbnails."),
    click.option("--explain", is_flag=True, help="Add maps of what speaks for each label to the page."),
)


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
    help="The output: .jsonl, .json, .csv, .tsv, .parquet or .sqlite.  [default: FOLDER-labels.csv]",
)
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(writers.JOB_FORMATS),
    help="Format of the output.  [default: from -o's suffix]",
)
@click.option(
    "--overwrite", is_flag=True, help="Label everything again; the old output stays until the new one is complete."
)
@click.option(
    "--rewrite", is_flag=True, help="Restore an output that was changed, from its job; FOLDER can be left out."
)
@click.option(
    "--include",
    multiple=True,
    metavar="GLOB",
    help="Label only these files; a GLOB with a / matches paths below FOLDER.",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Skip these files and folders.")
@click.option("--hidden", is_flag=True, help="Include hidden files and folders.")
@click.option("--follow", is_flag=True, help="Follow links to folders.")
@click.option("--depth", type=click.IntRange(1), help="Levels of folders to search; 1 is only FOLDER itself.")
@click.option("-r", "--recursive", is_flag=True, hidden=True, expose_value=False)  # as `classify` has it
@click.option("--files-from", type=options.PathName(), metavar="FILE", help="Read paths from a file, or - for stdin.")
@click.option("-0", "--null", is_flag=True, help="Paths in --files-from are separated by NUL bytes, not lines.")
@click.option("--retry-failed", is_flag=True, help="Retry photos that failed before.")
@click.option("--strict", is_flag=True, help="Stop at the first failure.")
@click.option("--relabel", is_flag=True, help="Relabel photos that were labelled with another model or other options.")
@click.option("--mix", is_flag=True, help="Keep rows from another model or other options; label only new photos.")
@click.option("--watch", is_flag=True, help="Then keep labelling new photos until Ctrl-C.")
@click.option(
    "--nice", type=click.IntRange(0, 19), metavar="0-19", help="Lower the priority, so that other programs go first."
)
@click.option(
    "--cluster",
    metavar="auto|ray://HOST:PORT",
    help="Run on a Ray cluster; -o is a folder of parquet files, or its URL.",
)
@options.model
@options.answers
@options.machine
@options.preprocessing
@options.decoding
@_sorting
@_keywords
@_yes
@_report
@options.verbosity("Print the time of each stage")
@model_options.with_predictor
def label(
    *,
    predictor: PredictorOptions,
    paths: tuple[str, ...],
    files_from: str | None,
    null: bool,
    depth: int | None,
    hidden: bool,
    follow: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    output: str | None,
    form: str | None,
    overwrite: bool,
    rewrite: bool,
    relabel: bool,
    mix: bool,
    retry_failed: bool,
    strict: bool,
    watch: bool,
    nice: int | None,
    cluster: str | None,
    sort_into: str | None,
    by: By,
    mode: Mode,
    dry_run: bool,
    undo: str | None,
    xmp: Place | None,
    xmp_naming: Naming,
    xmp_root: str,
    no_xmp_tree: bool,
    xmp_remove: bool,
    yes: bool,
    report: str | None,
    explain: bool,
    pull: bool,
    offline: bool,
    quiet: bool,
    verbose: int,
) -> int:
    """Label all photos in a folder of any size, and write a file of results.

    FOLDER is a folder or its URL (s3://bucket/photos), a photo, a glob, or a zip, tar or parquet file of photos.

    If a run is interrupted, run the same command again to resume it.
    """
    render.set_quiet(quiet)
    typed = options.typed(click.get_current_context())
    if undo:
        return _undo(undo, typed)
    if verbose == 1 and cluster is not None:  # -vv shows tracebacks
        raise click.UsageError("--verbose cannot be combined with --cluster: its nodes do not measure stages.")
    options.check_connection(pull=pull, offline=offline)
    from convnext_cli.base.text import counted
    from convnext_cli.cli.label_summary import print_cluster_summary
    from convnext_cli.cli.label_view import LabelView
    from convnext_cli.jobs import label as verb
    from convnext_cli.jobs.request import ClusterOptions, LabelRequest
    from convnext_cli.photos.selection import PhotoSelection

    photos = PhotoSelection(
        paths=paths,
        files_from=files_from,
        null=null,
        recursive=True,
        depth=depth,
        hidden=hidden,
        follow=follow,
        include=include,
        exclude=exclude,
        offline=offline,
    )
    if rewrite and not photos and (names := sorted(typed - _REWRITE_OPTIONS)):
        raise click.UsageError(
            f"--rewrite without a folder only writes the output: leave {_names(names)} out, or name the folder."
        )
    request = LabelRequest(
        photos=photos,
        predictor=predictor,
        output=output,
        format=form,
        overwrite=overwrite,
        rewrite=rewrite,
        relabel=relabel,
        mix=mix,
        retry_failed=retry_failed,
        strict=strict,
        watch=watch,
        nice=nice,
        sort=_sort_request(typed, sort_into, by, mode, dry_run),
        keywords=_keywords_request(typed, xmp, xmp_naming, xmp_root, no_xmp_tree, xmp_remove),
        report=report,
        explain=explain,
        yes=yes,
        cluster=None if cluster is None else ClusterOptions(address=cluster, pull=pull),
    )
    with ExitStack() as stack:
        if verbose < 2:
            stack.enter_context(render.c_libraries_silenced())
        view = LabelView(predictor.model.model, pull=pull, offline=offline)
        result = verb.label(request, listener=stack.enter_context(view))
    if request.only_rewrites:
        render.note(f"{result.output}: {counted(result.rows, 'row')}, written again from its job")
        return 0
    if request.cluster is not None:
        print_cluster_summary(result)
    view.introduce()
    return 0 if result.is_complete else 1


def _undo(log: str, typed: set[str]) -> int:
    """Take a sort back; the exit status."""
    if others := sorted(typed - {"undo", "quiet", "verbose"}):
        raise click.UsageError(f"--undo does nothing else: leave {_names(others)} out.")
    from convnext_cli.cli.label_summary import print_undone
    from convnext_cli.jobs.actions.undo import undo

    undone = undo(Path(log))
    print_undone(undone, log)
    return 1 if undone.kept else 0


def _sort_request(typed: set[str], into: str | None, by: By, mode: Mode, dry_run: bool) -> SortRequest | None:
    if not into:
        if names := [name for name in _SORT_OPTIONS if name in typed]:
            raise click.UsageError(f"{_names(names)} is for --sort-into.")
        return None
    from convnext_cli.jobs.actions.request import SortRequest

    return SortRequest(into=into, by=by, mode=mode, dry_run=dry_run)


def _keywords_request(
    typed: set[str], place: Place | None, naming: Naming, root: str, no_tree: bool, remove: bool
) -> KeywordsRequest | None:
    if place is None:
        if names := [name for name in _KEYWORD_OPTIONS if name in typed]:
            raise click.UsageError(f"{_names(names)} is for --xmp sidecar or --xmp embed.")
        return None
    from convnext_cli.jobs.keywords.request import KeywordsRequest

    return KeywordsRequest(
        place=place,
        naming=naming if "xmp_naming" in typed else None,
        root=root,
        tree=False if no_tree else None,
        remove=remove,
    )


def _names(names: Iterable[str]) -> str:
    return " and ".join("the paths" if name == "paths" else f"--{name.replace('_', '-')}" for name in names)
