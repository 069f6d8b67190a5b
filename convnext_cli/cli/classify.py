"""``convnext classify``: parse, call the pipeline, render."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import counts, demonstration, model_options, options, render, row_stream
from convnext_cli.predict import writers

if TYPE_CHECKING:
    from convnext_cli.photos.find import Finder, Photo
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
@click.option("-r", "--recursive", is_flag=True, help="Go into folders that --files-from or a glob names too.")
@click.option("--files-from", type=click.File("rb"), metavar="FILE", help="Read paths from a file, or - for stdin.")
@click.option("-0", "--null", is_flag=True, help="Paths of --files-from end with a NUL byte, not a line.")
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
    help="[default: by -o's suffix; else table on a terminal, lines elsewhere]",
)
@click.option("--json", "as_json", is_flag=True, help="Short for -f json.")
@click.option("-o", "--output", type=options.PathName(), metavar="FILE", help="Write the rows to a file.")
@click.option("--overwrite", is_flag=True, help="Replace the output when it is there.")
@click.option("--show", is_flag=True, help="Draw a small picture of each photo beside its labels.")
@options.verbosity("Times of each stage")
def classify(**given: Any) -> int:
    """Label photos, and print ranked labels.

    PATH is a photo, a folder, a quoted glob, a URL of these (s3://bucket/photo.jpg), a tar or parquet file of
    photos, or - for a photo on standard input.
    """
    start = time.perf_counter()
    render.set_quiet(given["quiet"])
    given["paths"] = model_options.places(given)
    if given["output"] == "-":
        given["output"] = None
    form = _format(given)
    model_options.check(given)
    _check(given, form)
    listing = getattr(given["files_from"], "name", None)
    inputs = [*given["paths"], listing, given["labels"], given["model"]]
    row_stream.check(given["output"], overwrite=given["overwrite"], inputs=inputs)
    with ExitStack() as stack:
        if given["verbose"] < 2:
            stack.enter_context(render.c_libraries_silenced())
        finder, photos = _photos(given)
        predictor = _open(given)
        stack.callback(predictor.engine.close)
        if not _is_one(given):  # its name is known
            from convnext_cli.cli import witness

            predictor = predictor.noting(stack.enter_context(witness.noting("classify", given["timeout"])))
        failures = _Failures()
        if form == "table":
            _print_tables(predictor, failures.kept(predictor.rows(photos)))
        else:
            _write(predictor, failures.kept(_counted(predictor, photos, bool(given["output"]))), form, given)
        failures.report(predictor.times.photos, quiet=given["quiet"])
        _summary(predictor, finder, given, time.perf_counter() - start)
        demonstration.introduce(given["model"])
        _prepare(predictor, given)
        return 1 if predictor.times.failed else 0


def _format(given: dict[str, Any]) -> str:
    target, form = given["output"], "json" if given["as_json"] else given["form"]
    if given["as_json"] and given["form"] not in (None, "json"):
        raise click.UsageError(f"--json and --format {given['form']} exclude each other.")
    if form is None:
        form = writers.format_by_suffix(Path(target).suffix) if target else _default_format()
        if form is None:
            raise click.UsageError(
                f"The format of {target!r} cannot be told from its name: add -f, for example -f jsonl."
            )
    if form == "table" and target:
        *others, last = FORMATS[1:]
        raise click.UsageError(f"Tables are for the screen: use -f {', '.join(others)} or {last} with -o.")
    if form == "parquet" and not target and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a screen: name a file with -o.")
    return str(form)


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


def _check(given: dict[str, Any], form: str) -> None:
    """Raises UsageError for options that cannot take effect."""
    if given["overwrite"] and given["output"] is None:
        raise click.UsageError("--overwrite is for -o FILE.")
    if given["show"] and (form != "table" or not render.out().is_terminal or render.out().is_dumb_terminal):
        raise click.UsageError("--show draws on a terminal, beside the labels of -f table.")


def _photos(given: dict[str, Any]) -> tuple[Finder, Iterator[Photo]]:
    from convnext_cli.photos.find import Finder

    finder = Finder(given["recursive"], shards="opened", offline=given["offline"])
    paths, listing = given["paths"], given["files_from"]
    if not paths and listing is None:
        raise click.UsageError("Name at least one photo, or - for standard input, or --files-from FILE.")
    if given["null"] and listing is None:
        raise click.UsageError("-0 belongs to --files-from.")
    if "-" in paths and listing is not None and getattr(listing, "name", "") == "<stdin>":
        raise click.UsageError("Standard input can hold a photo or a list of paths, not both.")
    named = finder.named(paths)
    if finder.looked_into and not given["recursive"]:
        more = f" and {len(finder.looked_into) - 1} more" if finder.looked_into[1:] else ""
        render.note(f"note: looking into the folder {finder.looked_into[0]}{more}")
    return finder, chain(named, finder.listed(listing, null=given["null"])) if listing is not None else named


def _open(given: dict[str, Any]) -> Predictor:
    few = not given["recursive"] and given["files_from"] is None and len(given["paths"]) <= FEW
    few = few and not any(_holds_many(path) for path in given["paths"])
    return model_options.predictor(
        given,
        job="latency" if few else "throughput",
        photos=len(given["paths"]) if few else None,
        prepare=not few or given["engine"] != "auto",
        thumbnail=4 * render.THUMBNAIL_WIDTH if given["show"] else 0,
    )


def _is_one(given: dict[str, Any]) -> bool:
    """Whether the user named one photo."""
    paths = given["paths"]
    return len(paths) == 1 and given["files_from"] is None and os.path.isfile(paths[0]) and not _holds_many(paths[0])  # noqa: PTH113


def _holds_many(path: str) -> bool:
    """Whether one path stands for many photos."""
    from convnext_cli.photos.containers.shards import is_container
    from convnext_cli.storage.addresses import is_url
    from convnext_cli.storage.listing import is_glob

    # what a URL without a suffix is takes a request to know
    return is_container(path) or os.path.isdir(path) or (is_url(path) and (is_glob(path) or path.endswith("/")))  # noqa: PTH112


def _prepare(predictor: Predictor, given: dict[str, Any]) -> None:
    """After the answer of torch: make the engine that gives the next one without it."""
    from convnext_cli import zoo
    from convnext_cli.base.errors import ConvNextError
    from convnext_cli.runtimes import cache

    engine = predictor.engine
    if given["engine"] != "auto" or given["compiled"] or (engine.name, engine.device) != ("torch", "cpu"):
        return
    path = zoo.resolve(given["model"] or zoo.default_model())
    if engine.dtype == "float16" or cache.complete(path, engine.dtype) or not cache.writable():
        return
    render.note(f"preparing {engine.card.name}, once: the next answer comes sooner (Ctrl-C stops this alone)")
    sys.stdout.flush()
    from convnext_cli.runtimes.build import prepare

    try:
        done = prepare(path, dtype=engine.dtype, threads=predictor.threads)
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


def _write(predictor: Predictor, rows: Iterator[Row], form: str, given: dict[str, Any]) -> None:
    from convnext_cli.cli.plain_lines import LinesWriter

    k = min(predictor.k or len(predictor.labels.names), len(predictor.labels.names))
    if form == "lines" and "top" not in options.typed(click.get_current_context()):
        k = 1
    with row_stream.opened(given["output"]) as stream:
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


def _summary(predictor: Predictor, finder: Finder, given: dict[str, Any], seconds: float) -> None:
    times, engine, card = predictor.times, predictor.engine, predictor.engine.card
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
    if given["verbose"]:
        compiled = ", compiled," if getattr(engine, "compiled", False) else ""
        render.note(
            f"recipe: {recipe.describe()}; logits divided by {predictor.temperature:g}\n"
            f"engine: {engine.name}{compiled} on {engine.device} in {engine.dtype}, batches of {predictor.batch_size}, "
            f"{predictor.threads} threads, {predictor.preprocessor.workers} of them decode{_measured(engine)}\n"
            f"times: start {seconds - times.wall:.2f} s; read {times.read:.2f} s{_readers(times)}, "
            f"decode {times.decode:.2f} s, "
            f"prepare {times.prepare:.2f} s (over {times.workers} threads), network {times.engine:.2f} s\n"
            f"the {times.limiting()} limits"
        )
