"""``convnext evaluate``: parse, have it measured, render."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import click

from convnext_cli.cli import evaluate_view, model_options, options, render, types

if TYPE_CHECKING:
    from convnext_cli.evaluation.evaluate import EvaluateResult
    from convnext_cli.evaluation.labelled_data import Split
    from convnext_cli.predict.options import PredictorOptions


@click.command(
    epilog="\b\nExamples:\n  convnext evaluate photos/\n"
    "  convnext evaluate -m convnext_tiny.fb_in1k imagenet/val -o tiny/\n"
    "  convnext evaluate validation.parquet --against my_checkpoint.pth\n"
    "  convnext evaluate photos.zip --json --fail-below 80 > figures.json"
)
@click.argument("data", nargs=-1, required=True, type=options.PathName(), metavar="DATA...")
@options.model
@click.option(
    "--against", type=options.ModelName(), help="Also evaluate a second model on the same photos, and compare."
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    help="Which photos to evaluate.  [default: test, else val, else all]",
)
@click.option(
    "--labels",
    type=types.LabelsName(),
    metavar="FILE|SET",
    help="A file with your own names for the model's classes, or a bundled label set.",
)
@click.option("--classes", metavar="NAME,ID,…", help="Choose only among these labels, as in `classify`.")
@click.option("--only-these", is_flag=True, help="Choose only among the labels that are classes of the data.")
@click.option("--by-index", is_flag=True, help="Treat the names of the data's classes as class numbers of the model.")
@click.option("--skip-unmatched", is_flag=True, help="Leave out photos of classes that the model does not know.")
@click.option(
    "--skip-bad", is_flag=True, help="Leave out photos that cannot be read, instead of counting them as wrong."
)
@click.option(
    "--real", type=options.PathName(), metavar="FILE", help="ReaL labels (real.json) for ImageNet's validation photos."
)
@click.option(
    "--precision",
    type=types.Share(open=(True, True)),
    metavar="SHARE",
    default=0.95,
    show_default=True,
    help="Share of correct answers to reach with the suggested --min-score.",
)
@click.option(
    "--sure",
    type=types.Share(open=(True, True)),
    metavar="SHARE",
    help="Also measure the answers of `classify --sure`: how many are right, and how many photos get one.",
)
@click.option(
    "--sets",
    type=click.Choice(["0.8", "0.9", "0.95", "0.99"]),
    help="Also measure the sets of `classify --sets`: how many hold the right label, and how large they are.",
)
@click.option(
    "--foreign",
    multiple=True,
    type=options.PathName(),
    metavar="PATH",
    help="Photos of none of the model's classes: how many of them --sure answers. Repeatable.",
)
@click.option(
    "-o",
    "--output",
    type=options.PathName(),
    metavar="FOLDER",
    help="Write the confusion matrix, plots, predictions and a page of mistakes.",
)
@click.option("--overwrite", is_flag=True, help="Replace FOLDER.")
@click.option(
    "--mistakes",
    default=100,
    show_default=True,
    type=click.IntRange(0),
    help="Number of photos on the page of mistakes.",
)
@click.option(
    "--fail-below",
    type=types.Percent(),
    metavar="PERCENT",
    help="Exit with status 1 if top-1 is lower, such as 80 or 80%.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as one JSON document.")
@options.machine
@options.preprocessing
@options.decoding
@options.verbosity("Print the time of each stage")
@model_options.with_predictor
def evaluate(
    *,
    data: tuple[str, ...],
    predictor: PredictorOptions,
    against: str | None,
    split: Split | None,
    only_these: bool,
    by_index: bool,
    skip_unmatched: bool,
    skip_bad: bool,
    real: str | None,
    precision: float,
    output: str | None,
    overwrite: bool,
    mistakes: int,
    fail_below: float | None,
    foreign: tuple[str, ...],
    as_json: bool,
    pull: bool,
    offline: bool,
    quiet: bool,
    verbose: int,
) -> int:
    """Measure a model's accuracy on labelled photos.

    DATA is a folder with a subfolder for each class (or with such folders in train, val and test), a zip of one, a
    CSV, TSV or parquet table of paths and labels, Hugging Face parquet files of photos, tar shards, or a URL of any of
    these.
    """
    start = time.perf_counter()
    render.set_quiet(quiet)
    options.check_connection(pull=pull, offline=offline)
    from convnext_cli.cli import witness
    from convnext_cli.cli.models import pull_if_missing
    from convnext_cli.evaluation.evaluate import evaluate as measure
    from convnext_cli.evaluation.request import EvaluateRequest

    request = EvaluateRequest(
        data=data,
        predictor=predictor,
        against=against,
        split=split,
        real=real,
        by_index=by_index,
        only_these=only_these,
        skip_unmatched=skip_unmatched,
        skip_bad=skip_bad,
        precision=precision,
        fail_below=fail_below,
        output=output or None,
        overwrite=overwrite,
        mistakes=mistakes if "mistakes" in options.typed(click.get_current_context()) else None,
        foreign=foreign,
        offline=offline,
    )
    with ExitStack() as stack:
        if verbose < 2:
            stack.enter_context(render.c_libraries_silenced())
        listener = stack.enter_context(evaluate_view.ProgressBars())
        result = measure(
            request,
            listener=listener,
            in_flight=partial(witness.noting, "evaluate", predictor.decoding.timeout),
            fetch=partial(pull_if_missing, offline=offline) if pull else None,
        )
    evaluate_view.print_failures(result.failures, "left out" if skip_bad else "failed")
    evaluate_view.print_failures(result.foreign_failures, "foreign photo left out")
    evaluate_view.print_document(result.document, as_json=as_json)
    if result.output is not None:
        render.note(f"written: {result.output}")
    render.note(f"{result.photos:,} photos in {time.perf_counter() - start:.1f} s")
    if verbose:
        for model in result.models:
            render.note(f"{model.model}: {model.times.limiting()} limits ({model.times.shares()})")
    return _status(result, fail_below, skipped=skip_bad)


def _status(result: EvaluateResult, fail_below: float | None, *, skipped: bool) -> int:
    if result.failed:
        counted = "1 photo counts" if result.failed == 1 else f"{result.failed:,} photos count"
        render.note(f"{counted} as wrong because of that; --skip-bad leaves such photos out")
    if result.falls_short:
        sys.stdout.flush()
        render.error(f"top-1 is {100 * result.models[0].top1.value:.2f} %, below {fail_below:g} %")
    is_unread = result.failed or (result.foreign_failures and not skipped)
    return 1 if is_unread or result.falls_short else 0
