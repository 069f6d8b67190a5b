"""``convnext explain``: parse, explain, and draw the maps."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import click

from convnext_cli.cli import demonstration, model_options, options, render

if TYPE_CHECKING:
    from convnext_cli.predict.options import PredictorOptions
    from convnext_cli.predict.preprocess import InFlight


@click.command(
    epilog="\b\nExamples:\n  convnext explain photo.jpg\n  convnext explain holiday/ -k 1 -o maps\n"
    "  convnext explain photo.jpg --classes tabby -o maps"
)
@click.argument("paths", nargs=-1, type=options.PathName(), metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Also search folders that --files-from or a glob names.")
@click.option("--files-from", type=options.PathName(), metavar="FILE", help="Read paths from a file, or - for stdin.")
@click.option("-0", "--null", is_flag=True, help="Paths in --files-from are separated by NUL bytes, not lines.")
@options.model
@options.labels
@options.option(
    "-k",
    "--top",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    aliases=("--topk", "--top-k"),
    help="Number of labels to explain for each photo.",
)
@options.device
@options.threads
@options.preprocessing
@options.decoding
@click.option("-o", "--output", type=options.PathName(), metavar="FOLDER", help="Write a PNG file for each label.")
@click.option("--overwrite", is_flag=True, help="Replace pictures of the same name in FOLDER.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each photo, with the maps as numbers.")
@options.verbosity("Print the time of each stage")
@model_options.with_predictor
def explain(
    *,
    predictor: PredictorOptions,
    paths: tuple[str, ...],
    recursive: bool,
    files_from: str | None,
    null: bool,
    output: str | None,
    overwrite: bool,
    as_json: bool,
    pull: bool,
    offline: bool,
    quiet: bool,
    verbose: int,
) -> int:
    """Draw what speaks for and against each label of a photo, and where.

    PATH is as for `classify`. Orange places speak for a label, blue ones against it; the frame is the part of the photo
    that the network saw. Without -o, the maps are drawn on the terminal.
    """
    start = time.perf_counter()
    render.set_quiet(quiet)
    from convnext_cli.photos.selection import PhotoSelection

    photos = PhotoSelection(paths=paths, files_from=files_from, null=null, recursive=recursive, offline=offline)
    options.check_connection(pull=pull, offline=offline)
    if not photos:
        raise click.UsageError("Name at least one photo, or - for standard input, or --files-from FILE.")
    if output is None and not as_json:
        _check_screen()
    from convnext_cli.cli import explain_view
    from convnext_cli.explanation import explain as verb
    from convnext_cli.explanation.request import ExplainRequest
    from convnext_cli.predict.classify import is_one

    request = ExplainRequest(photos=photos, predictor=predictor, output=output, overwrite=overwrite)
    with ExitStack() as stack:
        if verbose < 2:
            stack.enter_context(render.c_libraries_silenced())
        in_flight: Callable[[], AbstractContextManager[InFlight | None]] = nullcontext
        fetch = None
        if not is_one(photos):  # its name is known
            from convnext_cli.cli import witness

            in_flight = partial(witness.noting, "explain", predictor.decoding.timeout)
        if pull:
            from convnext_cli.cli.models import pull_if_missing

            fetch = partial(pull_if_missing, offline=offline)
        explaining = stack.enter_context(
            verb.open_explanations(request, render.Notes(), in_flight=in_flight, fetch=fetch)
        )
        explain_view.show(explaining, drawn=output is None and not as_json, as_json=as_json, quiet=quiet)
        explain_view.print_summary(explaining, time.perf_counter() - start)
        if verbose:
            explain_view.print_times(explaining, time.perf_counter() - start)
        demonstration.introduce(predictor.model.model)
        return 1 if explaining.predictor.times.failed else 0


def _check_screen() -> None:
    """Raise UsageError where standard output cannot show a map."""
    console = render.out()
    if not console.is_terminal or console.is_dumb_terminal:
        raise click.UsageError("Maps are drawn on a terminal: name a folder with -o, or print numbers with --json.")
    if console.no_color:
        raise click.UsageError("Maps are drawn in colours, and NO_COLOR is set: name a folder with -o.")
