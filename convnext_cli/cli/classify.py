"""``convnext classify``: parse, label, and draw the rows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convnext_cli.cli import demonstration, model_options, options, render
from convnext_cli.predict import writers
from convnext_cli.storage import output_file

if TYPE_CHECKING:
    from convnext_cli.predict.options import ModelOptions, PredictorOptions
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.preprocess import InFlight
FORMATS = ("table", "lines", *writers.FORMATS)


@click.command(
    epilog="\b\nExamples:\n  convnext classify photo.jpg\n  convnext classify holiday/ -f csv -o labels.csv\n"
    "  find . -name '*.heic' -print0 | convnext classify --files-from - -0 -f jsonl"
)
@click.argument("paths", nargs=-1, type=options.PathName(), metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Also search folders that --files-from or a glob names.")
@click.option("--files-from", type=options.PathName(), metavar="FILE", help="Read paths from a file, or - for stdin.")
@click.option("-0", "--null", is_flag=True, help="Paths in --files-from are separated by NUL bytes, not lines.")
@options.model
@options.answers
@options.machine
@options.preprocessing
@options.decoding
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="[default: from -o's suffix, else table on a terminal and lines elsewhere]",
)
@click.option("--json", "as_json", is_flag=True, help="The same as -f json.")
@click.option("-o", "--output", type=options.PathName(), metavar="FILE", help="Write the rows to a file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--show", is_flag=True, help="Draw a small picture of each photo beside its labels.")
@options.verbosity("Print the time of each stage")
@model_options.with_predictor
def classify(
    *,
    predictor: PredictorOptions,
    paths: tuple[str, ...],
    recursive: bool,
    files_from: str | None,
    null: bool,
    form: str | None,
    as_json: bool,
    output: str | None,
    overwrite: bool,
    show: bool,
    pull: bool,
    offline: bool,
    quiet: bool,
    verbose: int,
) -> int:
    """Label photos, and print ranked labels.

    PATH is a photo, a folder, a quoted glob, a URL of these (s3://bucket/photo.jpg), a tar or parquet file of
    photos, or - for a photo on standard input.
    """
    start = time.perf_counter()
    render.set_quiet(quiet)
    from convnext_cli.photos.selection import PhotoSelection

    photos = PhotoSelection(paths=paths, files_from=files_from, null=null, recursive=recursive, offline=offline)
    output = None if output == "-" else output
    form = _format(output, "json" if as_json else form, as_json=as_json, typed=form)
    options.check_connection(pull=pull, offline=offline)
    model = predictor.model
    _check(form, output, overwrite=overwrite, show=show)
    if not photos:
        raise click.UsageError("Name at least one photo, or - for standard input, or --files-from FILE.")
    inputs = [*photos.paths, files_from, model.labels, model.model]
    if output is not None:
        output_file.check(output, overwrite=overwrite, inputs=[None if name is None else str(name) for name in inputs])
    from convnext_cli.cli import classify_view
    from convnext_cli.predict import classify as verb

    request = verb.ClassifyRequest(
        photos=photos, predictor=predictor, thumbnail=4 * render.THUMBNAIL_WIDTH if show else 0
    )
    with ExitStack() as stack:
        if verbose < 2:
            stack.enter_context(render.c_libraries_silenced())
        in_flight: Callable[[], AbstractContextManager[InFlight | None]] = nullcontext
        fetch = None
        from convnext_cli.cli import process, witness

        if verb.is_one(photos):  # its name is known
            if process.is_owned():
                witness.end_by_status()
        else:
            in_flight = partial(witness.noting, "classify", predictor.decoding.timeout)
        if pull:
            from convnext_cli.cli.models import pull_if_missing

            fetch = partial(pull_if_missing, offline=offline)
        classification = stack.enter_context(
            verb.open_classification(request, render.Notes(), in_flight=in_flight, fetch=fetch)
        )
        opened = classification.predictor
        model_options.check_opened(opened)
        classify_view.write_rows(classification, form, output, columns=_columns(opened, form), quiet=quiet)
        classify_view.print_summary(classification, time.perf_counter() - start)
        if verbose:
            classify_view.print_times(opened, time.perf_counter() - start)
        demonstration.introduce(model.model)
        _prepare(opened, model)
        return 1 if opened.times.failed else 0


def _columns(predictor: Predictor, form: str) -> writers.Columns:
    """What a flat row has columns for."""
    classes = len(predictor.labels.names)
    k = min(predictor.k or classes, classes)
    if form == "lines" and "top" not in options.typed(click.get_current_context()):
        k = 1
    decider = predictor.decider
    return writers.Columns(k, decider is not None and decider.answers, decider is not None and decider.sets)


def _format(output: str | None, form: str | None, *, as_json: bool, typed: str | None) -> str:
    """The format of the rows.

    Args:
        output: the file; None for standard output.
        form: that was asked for; None for the default.
        as_json: whether ``--json`` is what asked for it.
        typed: as ``--format`` has it.
    """
    if as_json and typed not in (None, "json"):
        raise click.UsageError(f"--json and --format {typed} exclude each other.")
    if form is None:
        form = writers.format_by_suffix(Path(output).suffix) if output else _default_format()
        if form is None:
            raise click.UsageError(
                f"The format of {output!r} cannot be inferred from its name: add -f, for example -f jsonl."
            )
    if form == "table" and output:
        *others, last = FORMATS[1:]
        raise click.UsageError(f"Tables are for the screen: use -f {', '.join(others)} or {last} with -o.")
    if form == "parquet" and not output and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a screen: name a file with -o.")
    return form


def _default_format() -> str:
    return "table" if sys.stdout.isatty() else "lines"


def _check(form: str, output: str | None, *, overwrite: bool, show: bool) -> None:
    """Raises UsageError for options that cannot take effect."""
    if overwrite and output is None:
        raise click.UsageError("--overwrite is for -o FILE.")
    if show and (form != "table" or not render.out().is_terminal or render.out().is_dumb_terminal):
        raise click.UsageError("--show draws on a terminal, beside the labels of -f table.")


def _prepare(predictor: Predictor, model: ModelOptions) -> None:
    """After the answer of torch: make the engine that gives the next one without it."""
    from convnext_cli import zoo
    from convnext_cli.base.errors import ConvNextError
    from convnext_cli.runtimes import cache

    engine = predictor.engine
    if model.engine != "auto" or model.compiled or (engine.name, engine.device) != ("torch", "cpu"):
        return
    path = zoo.resolve(model.model)
    if engine.dtype == "float16" or cache.complete(path, engine.dtype) or not cache.writable():
        return
    render.note(f"preparing {engine.card.name} once, so that the next answer comes sooner (Ctrl-C skips this)")
    sys.stdout.flush()
    from convnext_cli.runtimes.build import build_engines

    try:
        done = build_engines(path, dtype=engine.dtype, threads=predictor.threads)
    except (KeyboardInterrupt, ConvNextError, OSError, MemoryError) as error:
        render.note(f"not prepared: {str(error) or 'stopped'}")
        return
    if done.kept:
        render.note(f"{done.kept}: it will be prepared again next time")
        return
    render.note(f"prepared in {done.seconds:.1f} s: {done.choice.best('latency')} from now on")
