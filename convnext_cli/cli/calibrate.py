"""``convnext calibrate``: parse, have it fitted, render."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import click

from convnext_cli.cli import model_options, options, render

if TYPE_CHECKING:
    from convnext_cli.evaluation.labelled_data import Split
    from convnext_cli.predict.options import PredictorOptions


@click.command(
    epilog="\b\nExamples:\n  convnext calibrate -m run validation/\n"
    "  convnext calibrate -m convnext_tiny.fb_in1k imagenet/val -o tiny.safetensors\n"
    "  convnext classify -m run --sure 95% photo.jpg"
)
@click.argument("data", nargs=-1, required=True, type=options.PathName(), metavar="DATA...")
@options.model
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    help="Which photos to calibrate on.  [default: val, else test, else all]",
)
@click.option("--by-index", is_flag=True, help="Treat the names of the data's classes as class numbers of the model.")
@click.option("--skip-unmatched", is_flag=True, help="Leave out photos of classes that the model does not know.")
@click.option(
    "-o",
    "--output",
    type=options.PathName(),
    metavar="FILE",
    help="Write a new .safetensors file of the weights with the calibration inside.  [default: a file beside the "
    "weights, with .calibration after their name]",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as one JSON document.")
@options.machine
@options.preprocessing
@options.decoding
@options.verbosity()
@model_options.with_predictor
def calibrate(
    *,
    data: tuple[str, ...],
    predictor: PredictorOptions,
    split: Split | None,
    by_index: bool,
    skip_unmatched: bool,
    output: str | None,
    overwrite: bool,
    as_json: bool,
    pull: bool,
    offline: bool,
    quiet: bool,
    verbose: int,
) -> int:
    """Measure how far a model's answers can be trusted, for `--sure` and `--sets`.

    DATA is labelled photos that the model was not trained on, in any form that `convnext evaluate` takes: 200 photos or
    more, and 5 or more of each class. The weights themselves are never changed.
    """
    start = time.perf_counter()
    render.set_quiet(quiet)
    options.check_connection(pull=pull, offline=offline)
    from convnext_cli.cli import calibrate_view, evaluate_view, witness
    from convnext_cli.cli.models import pull_if_missing
    from convnext_cli.evaluation.calibrate import CalibrateRequest
    from convnext_cli.evaluation.calibrate import calibrate as fit

    request = CalibrateRequest(
        data=data,
        predictor=predictor,
        split=split,
        by_index=by_index,
        skip_unmatched=skip_unmatched,
        output=output,
        overwrite=overwrite,
        offline=offline,
    )
    with ExitStack() as stack:
        if verbose < 2:
            stack.enter_context(render.c_libraries_silenced())
        listener = stack.enter_context(evaluate_view.ProgressBars())
        result = fit(
            request,
            listener=listener,
            in_flight=partial(witness.noting, "calibrate", predictor.decoding.timeout),
            fetch=partial(pull_if_missing, offline=offline) if pull else None,
        )
    evaluate_view.print_failures(result.failures, "left out")
    calibrate_view.print_result(result, as_json=as_json)
    render.note(
        f"written: {result.output} · {result.calibration.photos:,} photos in {time.perf_counter() - start:.1f} s"
    )
    return 1 if result.failures else 0
