"""``convnext evaluate``: parse, have it measured, render."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import evaluate_view, model_options, options, render, types
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.datasets import Dataset, LabelledPhoto
    from convnext_cli.evaluation.document import Judged
    from convnext_cli.evaluation.truth import Chosen, Truth
    from convnext_cli.predict.predictor import Predictor

# Options of other commands that share ``opening``: an evaluation looks at all answers.
MOST_FAILURES = 10  # that are named, and of classes as many
_NOT_OFFERED = {"top": 5, "min_score": None, "floors": None, "softmax": False, "sigmoid": False, "logits": False}


@click.command(
    epilog="\b\nExamples:\n  convnext evaluate photos/\n"
    "  convnext evaluate -m convnext_tiny.fb_in1k imagenet/val -o tiny/\n"
    "  convnext evaluate validation.parquet --against my_checkpoint.pth\n"
    "  convnext evaluate photos.zip --json --fail-below 80 > figures.json"
)
@click.argument("data", nargs=-1, required=True, type=options.PathName(), metavar="DATA...")
@options.model
@click.option("--against", type=options.ModelName(), help="A second model on the same photos, and the difference.")
@click.option(
    "--split", type=click.Choice(["train", "val", "test", "all"]), help="[default: test, else val, else all photos]"
)
@click.option(
    "--labels",
    type=types.LabelsName(),
    metavar="FILE|SET",
    help="Own names for the model's classes, or a bundled set of labels.",
)
@click.option("--classes", metavar="NAME,ID,…", help="Only these labels of the model, as for `classify`.")
@click.option("--only-these", is_flag=True, help="Only the labels that are classes of the data may be answers.")
@click.option("--by-index", is_flag=True, help="The data's classes are numbers of the model's, whatever their names.")
@click.option("--skip-unmatched", is_flag=True, help="Leave out photos of classes that the model does not have.")
@click.option("--skip-bad", is_flag=True, help="Leave out photos that cannot be read; else they count as wrong.")
@click.option(
    "--real", type=options.PathName(), metavar="FILE", help="ReaL labels (real.json) of ImageNet's validation photos."
)
@click.option(
    "--precision",
    type=types.Share(open=(True, True)),
    metavar="SHARE",
    default=0.95,
    show_default=True,
    help="Share of right answers that the suggested --min-score is to reach.",
)
@click.option(
    "-o",
    "--output",
    type=options.PathName(),
    metavar="FOLDER",
    help="Confusion, pictures, predictions, mistakes as a page.",
)
@click.option("--overwrite", is_flag=True, help="Replace FOLDER.")
@click.option("--mistakes", default=100, show_default=True, type=click.IntRange(0), help="Photos on the page.")
@click.option(
    "--fail-below", type=types.Percent(), metavar="PERCENT", help="Exit 1 for a lower top-1, such as 80 or 80%."
)
@click.option("--json", "as_json", is_flag=True, help="All figures as one JSON document.")
@options.machine
@options.preprocessing
@options.decoding
@options.verbosity("Times of each stage")
def evaluate(**given: Any) -> int:
    """Measure a model's answers on labelled photos.

    DATA is a folder of class folders (or of train, val and test with class folders in them), a zip of these, a CSV,
    TSV or parquet of path and label, Hugging Face's image parquet files, tar shards, or a URL of any of these.
    """
    start = time.perf_counter()
    render.set_quiet(given["quiet"])
    model_options.check(given | _NOT_OFFERED)
    for name in ("mistakes", "overwrite"):
        if name in options.typed(click.get_current_context()) and given["output"] is None:
            raise click.UsageError(f"--{name} is for -o FOLDER.")
    from convnext_cli.cli import witness
    from convnext_cli.datasets import open_data
    from convnext_cli.evaluation import output_folder, real_labels

    if given["output"]:
        check_output(given["output"])
    target = Path(given["output"]) if given["output"] else None
    if target is not None:
        output_folder.check(target, overwrite=given["overwrite"])
    reassessed = real_labels.read(given["real"]) if given["real"] else None
    dataset = open_data(model_options.places(given, "data"))
    with ExitStack() as stack:
        stack.callback(dataset.close)
        if given["verbose"] < 2:
            stack.enter_context(render.c_libraries_silenced())
        dataset = _as_trained(dataset, given)
        split, photos = _split(dataset, given["split"])
        _tell_problems(dataset)
        models = [given["model"], given["against"]] if given["against"] else [given["model"]]
        predictors = [_open(given | {"model": name}, stack) for name in models]
        if len({predictor.model for predictor in predictors}) < len(predictors):  # two files of one name
            predictors = [
                replace(predictor, model=name or predictor.model)
                for predictor, name in zip(predictors, models, strict=True)
            ]
        chosen, predictors = _choose(dataset, photos, predictors, reassessed, given)
        notes = stack.enter_context(witness.noting("evaluate", given["timeout"]))
        predictors = [predictor.noting(notes) for predictor in predictors]
        document, judged, failed = _measure(dataset, chosen, predictors, split, target, given)
    _tell_failures(judged, chosen, skipped=given["skip_bad"])
    evaluate_view.print_document(document, as_json=given["as_json"])
    if target is not None:
        render.note(f"written: {target}")
    render.note(f"{len(chosen.photos):,} photos in {time.perf_counter() - start:.1f} s")
    if given["verbose"]:
        for predictor in predictors:
            render.note(f"{predictor.model}: {predictor.times.limiting()} limits ({predictor.times.shares()})")
    return _status(document, given, failed=failed)


def _as_trained(dataset: Dataset, given: dict[str, Any]) -> Dataset:
    """With the splits that the run made whose model this is, where it parted the same photos."""
    from convnext_cli.training.splits import parted

    model = Path(given["model"] or "")
    if not given["model"] or not model.exists():  # a name of the zoo
        return dataset
    found = parted(dataset, model_options.places(given, "data"), model if model.is_dir() else model.parent)
    if found is not None:
        if found.splits() == ("train",):
            render.note(f"note: {model} was trained on all of these photos: it knows them, and others it may not")
        else:
            render.note(f"note: {model} was trained on a part of these photos; its splits.csv says which")
    return found or dataset


def _split(dataset: Dataset, wanted: str | None) -> tuple[str | None, tuple[LabelledPhoto, ...]]:
    """The photos that are evaluated. Raises UsageError for a split that is not there."""
    from convnext_cli.base.errors import UsageError

    splits = dataset.splits()
    if wanted is None:
        # the test photos of public data often have no classes
        labelled = {photo.split for photo in dataset.photos if photo.label is not None}
        wanted = next((name for name in ("test", "val") if name in labelled), "all")
        if len(splits) > 1:
            render.note(f"note: of the splits {', '.join(splits)} this is {wanted}; --split takes another")
    if wanted == "all":
        return None, dataset.photos
    if wanted not in splits:
        there = f"its splits are {', '.join(splits)}" if splits else "it is not split"
        raise UsageError(
            f"the data has no split {wanted}: {there}",
            "name one of these, or --split all" if splits else "leave --split out",
        )
    return wanted, dataset.of(wanted)


def _tell_problems(dataset: Dataset) -> None:
    from convnext_cli.datasets import problems

    for problem in problems.by_name(dataset):
        if problem.kind != "one_photo_class":  # which is enough to be tested on
            render.note(f"note: {problem}")
    if dataset.passed_over:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in dataset.passed_over.most_common(10))
        render.note(f"note: passed over, because they are no photos: {kinds}")


def _open(given: dict[str, Any], stack: ExitStack) -> Predictor:
    predictor = model_options.predictor(given | _NOT_OFFERED, job="throughput", prepare=True)
    stack.callback(predictor.engine.close)
    return predictor


def _choose(
    dataset: Dataset,
    photos: tuple[LabelledPhoto, ...],
    predictors: list[Predictor],
    reassessed: list[list[int]] | None,
    given: dict[str, Any],
) -> tuple[Chosen, list[Predictor]]:
    """The photos and what is right for each; the predictors with the labels that count."""
    from convnext_cli.datasets import folder_drawing
    from convnext_cli.evaluation import truth

    if reassessed is None:
        folder_drawing.check(dataset)
    models = []
    for predictor in predictors:
        found = truth.find(dataset, predictor.labels, by_index=given["by_index"], only_these=given["only_these"])
        models.append(found)
    chosen = truth.choose(photos, models, skip_unmatched=given["skip_unmatched"], reassessed=reassessed)
    if chosen.left_out:
        names = chosen.unmatched[:MOST_FAILURES]
        more = ", …" if len(chosen.unmatched) > len(names) else ""
        told = f": {', '.join(names)}{more}" if names else ""
        render.note(f"note: left out: {truth.told(chosen.left_out)}{told}")
    named = [replace(predictor, labels=labels) for predictor, (labels, _) in zip(predictors, models, strict=True)]
    return chosen, named


def _measure(
    dataset: Dataset,
    chosen: Chosen,
    predictors: list[Predictor],
    split: str | None,
    target: Path | None,
    given: dict[str, Any],
) -> tuple[dict[str, Any], list[Judged], int]:
    """The document, what it was made from, and how many photos count as wrong because they cannot be read."""
    from convnext_cli.base.files import replacing_folder
    from convnext_cli.evaluation import document, output_folder

    with ExitStack() as stack:
        place = stack.enter_context(replacing_folder(target)) if target is not None else None
        whole = [
            _answers(dataset, chosen, truth, predictor, place and place / name)
            for truth, predictor, name in zip(
                chosen.truths, predictors, (output_folder.PREDICTIONS, output_folder.AGAINST), strict=False
            )
        ]
        judged, photos = whole, chosen.photos
        if given["skip_bad"]:
            judged, photos = document.without_failures(whole, photos)
        values = document.whole(dataset, split, chosen, photos, predictors, judged, precision=given["precision"])
        if place is not None:
            title, facts = evaluate_view.title(values), evaluate_view.facts(values)
            undrawn = output_folder.write(
                place, values, judged[0], dataset, photos, title=title, facts=facts, most=given["mistakes"]
            )
            if undrawn:
                render.note(f"note: {' and '.join(undrawn)} not drawn: pip install matplotlib")
    return values, whole, 0 if given["skip_bad"] else len(set().union(*(each.answers.errors for each in whole)))


def _answers(dataset: Dataset, chosen: Chosen, truth: Truth, predictor: Predictor, predictions: Path | None) -> Judged:
    from convnext_cli.evaluation import answers, output_folder
    from convnext_cli.evaluation.document import Judged

    with ExitStack() as stack:
        tell = stack.enter_context(_progress(len(chosen.photos), predictor))
        rows = output_folder.Predictions(stack.enter_context(predictions.open("wb")), truth) if predictions else None

        def keep(photo: LabelledPhoto, row: Any) -> None:
            tell()
            if rows is not None:
                rows.keep(photo, row)

        return Judged(truth, answers.answer(predictor, dataset, chosen.photos, keep))


@contextmanager
def _progress(total: int, predictor: Predictor) -> Iterator[Callable[[], None]]:
    """A bar on a terminal."""
    if not render.err().is_terminal or render.err().quiet:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=render.err(), transient=True) as progress:
        task = progress.add_task(render.clean(predictor.model), total=total, failed="")

        def tell() -> None:
            failed = f"[red]{predictor.times.failed} failed[/]" if predictor.times.failed else ""
            progress.update(task, advance=1, failed=failed)

        yield tell


def _tell_failures(judged: list[Judged], chosen: Chosen, *, skipped: bool) -> None:
    errors = {place: error for each in reversed(judged) for place, error in each.answers.errors.items()}
    what = "left out" if skipped else "failed"
    for place in sorted(errors)[:MOST_FAILURES]:
        render.note(f"{what}: {chosen.photos[place].path}: {errors[place].kind}: {errors[place].message}")
    if len(errors) > MOST_FAILURES:
        render.note(f"{what}: {len(errors) - MOST_FAILURES:,} more; --json names all")


def _status(document: dict[str, Any], given: dict[str, Any], *, failed: int) -> int:
    if failed:
        counted = "1 photo counts" if failed == 1 else f"{failed:,} photos count"
        render.note(f"{counted} as wrong because of that; --skip-bad leaves such photos out")
    top1, floor = document["top1"], given["fail_below"]
    if floor is not None and 100 * top1["right"] < floor * top1["photos"]:  # in whole numbers: 57 % is not below 57 %
        sys.stdout.flush()
        render.error(f"top-1 is {100 * top1['value']:.2f} %, below {floor:g} %")
        return 1
    return 1 if failed else 0
