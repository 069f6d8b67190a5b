"""``convnext classify``: parse, call the pipeline, render."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from convnext_cli.cli import options, render
from convnext_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from convnext_cli.photos.find import Finder, Photo
    from convnext_cli.photos.recipe import Recipe
    from convnext_cli.pipeline import Pipeline
    from convnext_cli.rows import Row

FORMATS = ("table", "json", "jsonl", "csv", "tsv", "parquet")


@click.command(
    epilog="\b\nExamples:\n  convnext classify photo.jpg\n  convnext classify -r holiday/ -f csv -o labels.csv\n"
    "  find . -name '*.heic' -print0 | convnext classify --files-from - -0 -f jsonl"
)
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Label the photos in folders, however deep.")
@click.option("--files-from", type=click.File("rb"), metavar="FILE", help="Read paths from a file, or - for stdin.")
@click.option("-0", "--null", is_flag=True, help="Paths of --files-from end with a NUL byte, not a line.")
@options.model
@click.option("--labels", metavar="FILE|SET", help="Own names for the classes, or a bundled set of labels.")
@click.option("-k", "--top", default=5, show_default=True, type=click.IntRange(0), help="Guesses a photo; 0 for all.")
@click.option("--min-score", type=float, help="Below it a photo is `unknown`; its guesses are kept.")
@click.option("--softmax", "scores", flag_value="softmax", help="Scores that add up to 1.  [default: as the model was trained]")
@click.option("--sigmoid", "scores", flag_value="sigmoid", help="One score of 0 to 1 for each label by itself.")
@click.option("--logits", "scores", flag_value="logits", help="The network's raw outputs.")
@options.machine
@options.preprocessing
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), help="[default: by -o's suffix, else table]")
@click.option("--json", "as_json", is_flag=True, help="Short for -f json.")
@click.option("-o", "--output", metavar="FILE", help="Write the rows to a file.")
@click.option("--overwrite", is_flag=True, help="Replace the output when it is there.")
@click.option("--show", is_flag=True, help="Draw a small picture of each photo beside its labels.")
@options.verbosity
def classify(**given: Any) -> int:
    """Label photos, and print ranked labels.

    PATH is a photo, a folder (-r), a quoted glob, or - for a photo on standard input.
    """
    start = time.perf_counter()
    render.set_quiet(given["quiet"])
    form = _format(given)
    _check_output(given)
    with ExitStack() as stack:
        if given["verbose"] < 2:
            stack.enter_context(render.c_libraries_silenced())
        finder, photos = _photos(given)
        pipeline = _pipeline(given)
        stack.callback(pipeline.engine.close)
        if form == "table":
            _print_tables(pipeline, photos)
        else:
            _write(pipeline, photos, form, given)
        _summary(pipeline, finder, given, time.perf_counter() - start)
        return 1 if pipeline.times.failed else 0


def _format(given: dict[str, Any]) -> str:
    from convnext_cli.rows import SUFFIXES

    output, form = given["output"], "json" if given["as_json"] else given["form"]
    if given["as_json"] and given["form"] not in (None, "json"):
        raise click.UsageError(f"--json and --format {given['form']} exclude each other.")
    if form is None:
        form = SUFFIXES.get(Path(output).suffix.lower()) if output else "table"
        if form is None:
            raise click.UsageError(
                f"The format of {output!r} cannot be told from its name: add -f, for example -f jsonl."
            )
    if form == "table" and output:
        raise click.UsageError("Tables are for the screen: use -f jsonl, json, csv, tsv or parquet with -o.")
    if form == "parquet" and not output and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a screen: name a file with -o.")
    return str(form)


def _check_output(given: dict[str, Any]) -> None:
    output = given["output"]
    if output and Path(output).is_file() and not given["overwrite"]:
        raise UsageError(f"{output} is there already", "choose another name, or replace it with --overwrite")
    if output and not Path(output).absolute().parent.is_dir():
        raise OutputError(f"the folder of {output} does not exist", f"mkdir -p {Path(output).parent}")


def _photos(given: dict[str, Any]) -> tuple[Finder, Iterator[Photo]]:
    from convnext_cli.photos.find import Finder

    finder = Finder(given["recursive"])
    paths, listing = given["paths"], given["files_from"]
    if not paths and listing is None:
        raise click.UsageError("Name at least one photo, or - for standard input, or --files-from FILE.")
    if given["null"] and listing is None:
        raise click.UsageError("-0 belongs to --files-from.")
    if "-" in paths and listing is not None and getattr(listing, "name", "") == "<stdin>":
        raise click.UsageError("Standard input can hold a photo or a list of paths, not both.")
    named = finder.named(paths)
    return finder, chain(named, finder.listed(listing, null=given["null"])) if listing is not None else named


def _pipeline(given: dict[str, Any]) -> Pipeline:
    from convnext_cli import zoo

    if given["pull"]:
        from convnext_cli.cli.models import pull_if_missing

        pull_if_missing(given["model"], offline=given["offline"])
    model = given["model"] or zoo.default_model()
    zoo.resolve(model)  # what is not there is said before torch is loaded
    from convnext_cli.pipeline import open_pipeline

    pipeline = open_pipeline(
        model,
        labels=given["labels"],
        device=given["device"],
        dtype=given["dtype"],
        threads=given["threads"],
        k=given["top"],
        scores=given["scores"],
        min_score=given["min_score"],
        batch_size=given["batch_size"],
        workers=given["workers"],
        max_pixels=given["max_pixels"],
        thumbnail=4 * render.THUMBNAIL_WIDTH if given["show"] and render.out().is_terminal else 0,
        say=lambda text: render.note(f"note: {text}"),
    )
    for note in pipeline.engine.notes:
        render.note(f"note: {note}")
    pipeline.recipe = _recipe(given, pipeline.recipe)
    return pipeline


def _recipe(given: dict[str, Any], recipe: Recipe) -> Recipe:
    """The card's recipe with the user's changes."""
    size = given["size"]
    if size == "test":
        recipe = recipe.at_test_size()
    elif size is not None:
        if not size.isdecimal() or int(size) < 1:
            raise click.BadParameter(f"{size!r} is neither a number of pixels nor `test`", param_hint="--size")
        recipe = recipe.at_size(int(size))
    changes = {
        "crop_pct": given["crop_pct"],
        "resize": given["resize_mode"],
        "interpolation": given["interpolation"],
        "mean": options.numbers(given["mean"], "--mean"),
        "std": options.numbers(given["std"], "--std"),
    }
    return recipe.changed(**{name: value for name, value in changes.items() if value is not None})


def _print_tables(pipeline: Pipeline, photos: Iterator[Photo]) -> None:
    console = render.out()
    bars = console.is_terminal and not console.is_dumb_terminal and pipeline.scores != "logits"
    for row in pipeline.rows(photos):
        render.print_row(row, bars=bars)
        sys.stdout.flush()


def _write(pipeline: Pipeline, photos: Iterator[Photo], form: str, given: dict[str, Any]) -> None:
    from convnext_cli.rows import WRITERS

    k = pipeline.k or len(pipeline.labels.names)
    with _opened(given["output"]) as stream:
        writer = WRITERS[form](stream, min(k, len(pipeline.labels.names)))
        try:
            for row in _counted(pipeline, photos, bool(given["output"])):
                writer.write(row)
                if form != "parquet":
                    stream.flush()
        finally:
            writer.close()


def _counted(pipeline: Pipeline, photos: Iterator[Photo], to_file: bool) -> Iterator[Row]:
    """The rows, with a count on the terminal when they go to a file."""
    rows = pipeline.rows(photos)
    if not (to_file and render.err().is_terminal) or render.err().quiet:
        yield from rows
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.completed} photos, {task.fields[failed]} failed"), TimeElapsedColumn()
    with Progress(*columns, console=render.err(), transient=True) as progress:
        task = progress.add_task("", total=None, failed=0)
        for row in rows:
            yield row
            progress.update(task, advance=1, failed=pipeline.times.failed)


@contextmanager
def _opened(output: str | None) -> Iterator[IO[bytes]]:
    """Where rows go. A file takes its name when all is written; what an interrupted run wrote takes it too."""
    if output is None:
        yield sys.stdout.buffer
        return
    path = Path(output)
    if path.exists() and not path.is_file():  # a pipe or a device
        with path.open("wb") as stream:
            yield stream
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as stream:
            try:
                yield stream
            finally:
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        kept = f"; what was written is kept in {part}" if part.exists() and part.stat().st_size else ""
        raise OutputError(
            f"{output} cannot be written: {error.strerror or error}{kept}", "free some space, or write elsewhere"
        ) from error
    except BaseException:
        part.replace(path)
        render.note(f"{output} holds the rows that were done")
        raise
    part.replace(path)


def _summary(pipeline: Pipeline, finder: Finder, given: dict[str, Any], seconds: float) -> None:
    times, engine, card = pipeline.times, pipeline.engine, pipeline.engine.card
    recipe = pipeline.recipe
    if finder.passed_over:
        kinds = [f"{count} {kind}" for kind, count in finder.passed_over.most_common()]
        more = f", {len(kinds) - 20} more types" if len(kinds) > 20 else ""
        render.note(f"passed over: {finder.passed_over.total()} files ({', '.join(kinds[:20])}{more})")
    names = pipeline.labels.name or "own labels"
    render.note(
        f"{card.name or pipeline.model}: {card.architecture or 'ConvNeXt'}, {len(pipeline.labels.names)} labels "
        f"({names}), {recipe.size[1]}×{recipe.size[0]} · {times.photos} photo{'s' * (times.photos != 1)}"
        + (f", {times.failed} failed" if times.failed else "")
        + (f", {times.unknown} unknown" if times.unknown else "")
        + f" in {seconds:.1f} s"
    )
    if given["verbose"]:
        render.note(
            f"recipe: {recipe.describe()}; logits divided by {pipeline.temperature:g}\n"
            f"engine: {engine.name} on {engine.device} in {engine.dtype}, batches of {pipeline.batch_size}, "
            f"{pipeline.threads} threads, {pipeline.workers} of them decode\n"
            f"times: start {seconds - times.wall:.2f} s; read {times.read:.2f} s, decode {times.decode:.2f} s, "
            f"prepare {times.prepare:.2f} s (over {times.workers} threads), network {times.engine:.2f} s\n"
            f"the {times.limiting()} limits"
        )
