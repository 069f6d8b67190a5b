"""``convnext classify``: parse, call the pipeline, render."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import counts, demonstration, model_options, options, render, row_stream
from convnext_cli.predict import writers

if TYPE_CHECKING:
    from convnext_cli.photos.find import Finder, Photo
    from convnext_cli.photos.selection import PhotoSelection
    from convnext_cli.predict.options import ModelOptions, PredictorOptions
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.rows import Row
    from convnext_cli.predict.stage_times import Times
    from convnext_cli.runtimes.protocol import Engine

FEW = 16  # photos that are answered at once, by whatever is ready
MOST_FAILURES = 10  # that are named
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
def classify(
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
    **values: Any,
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
    request = model_options.predictor_options(**values)
    model = request.model
    _check(form, output, overwrite=overwrite, show=show)
    if not photos:
        raise click.UsageError("Name at least one photo, or - for standard input, or --files-from FILE.")
    inputs = [*photos.paths, files_from, model.labels, model.model]
    row_stream.check(output, overwrite=overwrite, inputs=[None if name is None else str(name) for name in inputs])
    with ExitStack() as stack:
        if verbose < 2:
            stack.enter_context(render.c_libraries_silenced())
        finder = photos.finder(shards="opened")
        listed = photos.photos(finder)
        if finder.looked_into and not recursive:
            more = f" and {len(finder.looked_into) - 1} more" if finder.looked_into[1:] else ""
            render.note(f"note: looking into the folder {finder.looked_into[0]}{more}")
        if pull:
            model_options.pull_missing([request], offline=offline)
        predictor = _open(photos, request, show=show)
        stack.callback(predictor.engine.close)
        if not _is_one(photos):  # its name is known
            from convnext_cli.cli import witness

            predictor = predictor.noting(stack.enter_context(witness.noting("classify", request.decoding.timeout)))
        failures = _Failures()
        if form == "table":
            _print_tables(predictor, failures.kept(predictor.rows(listed)))
        else:
            _write(predictor, failures.kept(_counted(predictor, listed, bool(output))), form, output)
        failures.report(predictor.times.photos, quiet=quiet)
        _print_summary(predictor, finder, time.perf_counter() - start)
        if verbose:
            _print_times(predictor, time.perf_counter() - start)
        demonstration.introduce(None if model.model is None else str(model.model))
        _prepare(predictor, model)
        return 1 if predictor.times.failed else 0


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
                f"The format of {output!r} cannot be told from its name: add -f, for example -f jsonl."
            )
    if form == "table" and output:
        *others, last = FORMATS[1:]
        raise click.UsageError(f"Tables are for the screen: use -f {', '.join(others)} or {last} with -o.")
    if form == "parquet" and not output and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a screen: name a file with -o.")
    return form


def _default_format() -> str:
    return "table" if sys.stdout.isatty() else "lines"


@dataclass
class _Failures:
    """The first photos that failed, and how many did."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def kept(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            if row.error is not None:
                self.count += 1
                if len(self.first) < MOST_FAILURES:
                    self.first.append(f"{row.path}: {row.error.kind}: {row.error.message}")
            yield row

    def report(self, photos: int, *, quiet: bool) -> None:
        """Name them on standard error; with -q only their number."""
        if not self.count:
            return
        if quiet:
            what = "the photo" if photos == 1 else f"{self.count:,} of {photos:,} photos"
            render.error(f"{what} failed", f"without -q {'it is' if self.count == 1 else 'they are'} named")
            return
        for line in self.first:
            render.note(f"failed: {line}")
        if more := self.count - len(self.first):
            render.note(f"failed: {more:,} more; -f jsonl names all")


def _check(form: str, output: str | None, *, overwrite: bool, show: bool) -> None:
    """Raises UsageError for options that cannot take effect."""
    if overwrite and output is None:
        raise click.UsageError("--overwrite is for -o FILE.")
    if show and (form != "table" or not render.out().is_terminal or render.out().is_dumb_terminal):
        raise click.UsageError("--show draws on a terminal, beside the labels of -f table.")


def _open(photos: PhotoSelection, request: PredictorOptions, *, show: bool) -> Predictor:
    few = not photos.recursive and photos.files_from is None and len(photos.paths) <= FEW
    few = few and not any(_holds_many(path) for path in photos.paths)
    return model_options.open_predictor(
        request,
        job="latency" if few else "throughput",
        photos=len(photos.paths) if few else None,
        prepare=not few or request.model.engine != "auto",
        thumbnail=4 * render.THUMBNAIL_WIDTH if show else 0,
    )


def _is_one(photos: PhotoSelection) -> bool:
    """Whether the user named one photo."""
    if len(photos.paths) != 1 or photos.files_from is not None:
        return False
    (path,) = photos.paths
    return os.path.isfile(path) and not _holds_many(path)  # noqa: PTH113


def _holds_many(path: str) -> bool:
    """Whether one path stands for many photos."""
    from convnext_cli.photos.containers.shards import is_container
    from convnext_cli.storage.addresses import is_url
    from convnext_cli.storage.listing import is_glob

    # what a URL without a suffix is takes a request to know
    return is_container(path) or os.path.isdir(path) or (is_url(path) and (is_glob(path) or path.endswith("/")))  # noqa: PTH112


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
    render.note(f"preparing {engine.card.name}, once: the next answer comes sooner (Ctrl-C stops this alone)")
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


def _print_tables(predictor: Predictor, rows: Iterator[Row]) -> None:
    console = render.out()
    bars = console.is_terminal and not console.is_dumb_terminal and predictor.scores != "logits"
    for row in rows:
        render.print_row(row, bars=bars)
        sys.stdout.flush()


def _write(predictor: Predictor, rows: Iterator[Row], form: str, output: str | None) -> None:
    from convnext_cli.cli.plain_lines import LinesWriter

    k = min(predictor.k or len(predictor.labels.names), len(predictor.labels.names))
    if form == "lines" and "top" not in options.typed(click.get_current_context()):
        k = 1
    with row_stream.opened(output) as stream:
        writer = LinesWriter(stream, k) if form == "lines" else writers.FORMATS[form].writer(stream, k)
        try:
            for row in rows:
                writer.write(row)
                if form != "parquet":
                    stream.flush()
        finally:
            writer.close()


def _counted(predictor: Predictor, photos: Iterator[Photo], to_file: bool) -> Iterator[Row]:
    """The rows, with a count on the terminal when they go to a file."""
    rows = predictor.rows(photos)
    if not (to_file and render.err().is_terminal) or render.err().quiet:
        yield from rows
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.completed} photos, {task.fields[failed]} failed"), TimeElapsedColumn()
    with Progress(*columns, console=render.err(), transient=True) as progress:
        task = progress.add_task("", total=None, failed=0)
        for row in rows:
            yield row
            progress.update(task, advance=1, failed=predictor.times.failed)


def _measured(engine: Engine) -> str:
    """What an automatic choice was made from."""
    from convnext_cli.runtimes import cache

    found = cache.choice(engine.card, engine.dtype) if engine.device == "cpu" else None
    if found is None:
        return ""
    jobs = {"latency": "one photo", "throughput": "a folder"}
    return "".join(
        f"\nmeasured for {words}: "
        + ", ".join(f"{name} {ms:.1f} ms" for name, ms in found.measured.get(job, {}).items())
        for job, words in jobs.items()
    )


def _readers(times: Times) -> str:
    return f" (over {times.readers} threads)" if times.readers > times.workers else ""


def _print_summary(predictor: Predictor, finder: Finder, seconds: float) -> None:
    times, card = predictor.times, predictor.engine.card
    recipe = predictor.preprocessor.preprocessing
    if finder.passed_over:
        render.note(counts.passed_over(finder.passed_over))
    names = predictor.labels.name or "own labels"
    render.note(
        f"{card.name or predictor.model}: {card.architecture or 'ConvNeXt'}, {len(predictor.labels.names)} labels "
        f"({names}), {recipe.size[1]}×{recipe.size[0]} · {times.photos} photo{'s' * (times.photos != 1)}"
        + (f", {times.failed} failed" if times.failed else "")
        + (f", {times.unknown} unknown" if times.unknown else "")
        + f" in {seconds:.1f} s"
    )


def _print_times(predictor: Predictor, seconds: float) -> None:
    """How photos were prepared, what ran the network, and what each stage took."""
    times, engine, recipe = predictor.times, predictor.engine, predictor.preprocessor.preprocessing
    compiled = ", compiled," if getattr(engine, "compiled", False) else ""
    render.note(
        f"recipe: {recipe.describe()}; pixels {predictor.preprocessor.pixels}; "
        f"logits divided by {predictor.temperature:g}\n"
        f"engine: {engine.name}{compiled} on {engine.device} in {engine.dtype}, batches of {predictor.batch_size}, "
        f"{predictor.threads} threads, {predictor.preprocessor.workers} of them decode{_measured(engine)}\n"
        f"times: start {seconds - times.wall:.2f} s; read {times.read:.2f} s{_readers(times)}, "
        f"decode {times.decode:.2f} s, "
        f"prepare {times.prepare:.2f} s (over {times.workers} threads), network {times.engine:.2f} s\n"
        f"the {times.limiting()} limits"
    )
