"""``convnext train``: parse, train, render."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.base.files import check_utf8, user_path
from convnext_cli.base.threads import environment_number
from convnext_cli.cli import model_options, options, render, train_view, types
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.training.job import Job, Outcome
    from convnext_cli.training.run_folder import RunFolder

_INTERRUPTED = "interrupted; the same command{} goes on: {} has all that is needed"
_SHARE = types.Share(open=(False, True))


# Hours, minutes and seconds in this order, each with its unit; a bare number is minutes.
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_TIME = re.compile(
    rf"(?:{_NUMBER}\s*h(?:ours?|rs?)?)?\s*(?:{_NUMBER}\s*m(?:in(?:ute)?s?)?)?\s*(?:{_NUMBER}\s*s(?:ec(?:ond)?s?)?)?"
)


class _Minutes(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A time such as 90s, 20m, 20min, 1.5h or 1h30m; a bare number is minutes."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip().lower()
        parts = _TIME.fullmatch(f"{text}m" if re.fullmatch(_NUMBER, text) else text)
        hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0.0, 0.0, 0.0)
        minutes += 60 * hours + seconds / 60
        if not 0 < minutes < 1e6:
            self.fail(f"{value!r} is not a time such as 90s, 20m, 1.5h or 1h30m", param, ctx)
        return minutes


@click.command(
    epilog="\b\nExamples:\n  convnext train flowers/ -o run/\n"
    "  convnext train clothes.zip -o run/ --time 15m --size 96\n"
    "  convnext train photos.csv -o run/ --freeze\n"
    "  convnext train tiny/ -o run/ --from scratch --arch convnext_femto --time 8h\n"
    "  convnext classify -m run/ photo.jpg"
)
@click.argument("data", nargs=-1, type=options.PathName(), metavar="DATA...")
@click.option(
    "-o",
    "--output",
    type=options.PathName(),
    default="run",
    show_default=True,
    metavar="RUN",
    help="The run's folder; the same command again goes on.",
)
@click.option(
    "--from",
    "start",
    type=options.ModelName(),
    help="Weights to begin with: a name, a file or a folder, or `scratch`.  [default: the bundled model]",
)
@click.option("--arch", metavar="VARIANT", help="The network, from scratch.  [default: convnext_atto]")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), callback=options.finite, help="Times through train.")
@click.option("--time", "minutes", type=_Minutes(), metavar="TIME", help="How long to train: 90s, 20m, 1.5h, 1h30m.")
@click.option("--size", type=click.IntRange(1), help="Edge of the photos in pixels.  [default: that of the weights]")
@click.option(
    "--resize-mode",
    "resize",
    type=click.Choice(["shortest", "squash", "longest"]),
    help="Fit the shortest edge and crop, both edges, or the longest edge and pad.  [default: by the photos' shapes]",
)
@click.option("-b", "--batch-size", type=click.IntRange(2), help="Photos a step, over all processes.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), callback=options.finite, help="Highest learning rate.")
@click.option("--freeze", is_flag=True, default=None, help="Fit the classifier alone, on features computed once.")
@click.option(
    "--teacher", type=options.ModelName(), help="Learn from this model too: a name, a path, or a file of its logits."
)
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), help="Of the products; auto measures.")
@click.option("--compile", "compile", is_flag=True, default=None, help="Have torch compile the network: for long runs.")
@click.option("--seed", type=click.IntRange(0), help="Of everything random.  [default: 0]")
@click.option(
    "--recipe",
    type=options.PathName(),
    metavar="FILE",
    help="A TOML file of settings, such as another run's recipe.toml.",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting of docs/train.md.")
@click.option("--val", type=_SHARE, help="Share for val (0.2, 20%), where DATA has none; 0.15 if left out.")
@click.option("--test", type=_SHARE, help="Share for test (0.2, 20%), where DATA has no splits; 0.15 if left out.")
@click.option("--skip-bad", is_flag=True, help="Leave out photos and classes that cannot be used.")
@click.option("--overwrite", is_flag=True, help="Begin anew where RUN holds a run.")
@click.option("--pull", is_flag=True, help="Fetch the named weights first when they are not on this machine.")
@click.option("--offline", is_flag=True, help="Never open a connection.")
@click.option("-d", "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps or xpu.")
@options.threads
@click.option(
    "-j", "--workers", type=click.IntRange(0), help="Processes that change photos.  [default: half of the threads]"
)
@click.option(
    "--memory",
    type=click.FloatRange(0),
    callback=options.finite,
    metavar="GB",
    help="That photos may take; more are read anew each time.  [default: half of what is free]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    callback=options.finite,
    metavar="SECONDS",
    help="Give up a photo that takes longer to read, or more processor time to decode.  [default: 3600 and 120]",
)
@click.option("--json", "as_json", is_flag=True, help="What came of it as one JSON document.")
@options.verbosity()
def train(**given: Any) -> int:
    """Train a network on labelled photos, with your own labels.

    DATA is a folder of class folders (or of train, val and test with class folders in them), a zip of these, a CSV,
    TSV or parquet of path and label, or Hugging Face's image parquet files. RUN/model.safetensors is the best model;
    a run that was cut, however, goes on with the same command.
    """
    begun = time.perf_counter()
    if environment_number("RANK", 0):  # one of torchrun's others: the first one tells
        given["quiet"] = True
    render.set_quiet(given["quiet"])
    if "torch" not in sys.modules:  # which takes seconds, and far more from a slow disk
        render.note("loading PyTorch")
    from convnext_cli.base.errors import UsageError
    from convnext_cli.training.run_folder import RunFolder

    check_output(given["output"])
    folder = RunFolder(user_path(given["output"]))
    check_utf8(folder.path)
    if "output" not in options.typed(click.get_current_context()):
        render.note(f"note: the folder of this run is {folder.path}; -o names another")
    from convnext_cli.datasets import open_data

    folder.check()
    if not folder.begun() and not folder.free():
        raise UsageError(f"{folder.path} is there, and holds no run", "name another folder")
    if not given["data"]:
        if not folder.begun():
            raise click.UsageError("Missing argument 'DATA...'.")
        given["data"] = folder.read_facts()["data"]
    paths = list(model_options.places(given, "data"))
    if given["overwrite"] and folder.begun() and "RANK" in os.environ:
        raise UsageError("--overwrite is for one process", "remove the folder first")
    job = _job(given, folder, paths, begun=folder.begun() and not given["overwrite"])
    from convnext_cli.cli import witness
    from convnext_cli.training import distributed, run

    group = distributed.join(given["device"])
    view = train_view.LiveView(quiet=given["quiet"] or not group.first)
    try:
        with closing(open_data(paths)) as dataset, view, witness.noting("train", given["timeout"]) as notes:
            outcome = run.train(job, replace(dataset, in_flight=notes), group, view)
    except KeyboardInterrupt:
        render.note(_interrupted(job) if folder.begun() else "interrupted before the run began")
        return 130
    finally:
        group.leave()
    if not group.first:
        return 0
    return _tell(outcome, job, given, time.perf_counter() - begun)


def _job(given: dict[str, Any], folder: RunFolder, paths: list[str], *, begun: bool) -> Job:
    """What is asked for, with names of models made paths. begun: whether it is to go on with what is in the folder."""
    from convnext_cli import zoo
    from convnext_cli.base.errors import UsageError
    from convnext_cli.base.threads import usable_threads
    from convnext_cli.training import classifier_head, distributed, setting_effects
    from convnext_cli.training import settings as recipes
    from convnext_cli.training.job import Job
    from convnext_cli.training.teacher import is_file_of_logits

    values = recipes.read(Path(given["recipe"])) if given["recipe"] else {}
    named = dict.fromkeys(values, str(given["recipe"]))
    names = (
        "start",
        "arch",
        "epochs",
        "minutes",
        "size",
        "resize",
        "batch_size",
        "lr",
        "freeze",
        "teacher",
        "dtype",
        "compile",
    )
    options = {name: given[name] for name in (*names, "seed") if given[name] is not None}
    options |= dict(map(recipes.parse, given["settings"]))
    values |= options
    named |= dict.fromkeys(options, "")
    begin = values.get("start", "default")
    recipe = recipes.make({"start": begin} | ({"arch": "convnext_atto"} if begin == recipes.SCRATCH else {}) | values)
    if not begun:
        setting_effects.check(recipe, named, chosen=False)
    known = recipes.read(folder.recipe) | values if begun else values
    if known.get("freeze"):
        classifier_head.check_alone(distributed.started())
    start = known.get("start", "default")
    if given["pull"] and start == recipes.SCRATCH and not known.get("teacher"):
        raise UsageError(
            "--pull has no effect from scratch and without a teacher: no weights are named", "leave it out"
        )
    idle = "with freeze" if known.get("freeze") else "with augment = affine" if known.get("augment") == "affine" else ""
    if given["workers"] and idle:
        raise UsageError(f"--workers has no effect {idle}: no process changes photos one at a time", "leave it out")
    wanted = [name for name in (start, known.get("teacher")) if name not in (None, recipes.SCRATCH)]
    found: dict[str, Path] = {}
    for name in wanted:
        if is_file_of_logits(name):
            if not Path(name).is_file():
                raise UsageError(f"{name} does not exist", "name the file of logits")
            found[name] = Path(name)
            continue
        if given["pull"]:
            from convnext_cli.cli.models import pull_if_missing

            pull_if_missing(name, offline=given["offline"])
        found[name] = zoo.resolve(zoo.default_model() if name == "default" else name)
    if not begun:
        values.setdefault("start", start)
    # torchrun's processes share this machine
    threads = given["threads"] or max(1, usable_threads() // max(1, environment_number("LOCAL_WORLD_SIZE", 1)))
    workers = given["workers"]
    return Job(
        paths=paths,
        folder=folder.path,
        given=values,
        named=named,
        start=None if start == recipes.SCRATCH else found[start],
        teacher=found[known["teacher"]] if known.get("teacher") else None,
        val=given["val"],
        test=given["test"],
        skip_bad=given["skip_bad"],
        threads=threads,
        workers=max(1, threads // 2) if workers is None else workers,
        timeout=given["timeout"],
        memory=None if given["memory"] is None else int(given["memory"] * 1e9),
        command=shlex.join(["convnext", *sys.argv[1:]]),
        overwrite=given["overwrite"],
    )


def _interrupted(job: Job) -> str:
    return _INTERRUPTED.format(" without --overwrite" if job.overwrite else "", job.folder)


def _tell(outcome: Outcome, job: Job, given: dict[str, Any], seconds: float) -> int:
    import json

    if not outcome.finished:
        render.note(_interrupted(job))
        return 130
    if given["as_json"]:
        click.echo(json.dumps(outcome.facts))
    else:
        train_view.print_results(outcome.facts)
    if outcome.trained:
        render.note(f"written: {job.folder / 'model.safetensors'}; {train_view.duration(seconds)}")
    else:
        render.note(f"{job.folder} holds a run that is done: nothing was trained; --overwrite begins anew")
    render.note(f"try it: convnext classify -m {job.folder} PHOTO")
    return 0
