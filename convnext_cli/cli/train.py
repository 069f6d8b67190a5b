"""``convnext train``: parse, train, render."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from convnext_cli.base.files import user_path
from convnext_cli.base.text import duration
from convnext_cli.base.threads import environment_number
from convnext_cli.cli import options, render, train_view, types

if TYPE_CHECKING:
    from convnext_cli.training.train import TrainResult

_INTERRUPTED = "interrupted; run the same command again to resume it in {}"
_SHARE = types.Share(open=(False, True))


# Hours, minutes and seconds in this order, each with its unit; a bare number is minutes.
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_TIME = re.compile(
    rf"(?:{_NUMBER}\s*h(?:ours?|rs?)?)?\s*(?:{_NUMBER}\s*m(?:in(?:ute)?s?)?)?\s*(?:{_NUMBER}\s*s(?:ec(?:ond)?s?)?)?"
)


class _Minutes(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A time such as 90s, 20m, 20min, 1.5h or 1h30m; a bare number is minutes."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
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
    help="Folder of the run.",
)
@click.option(
    "--from",
    "start",
    type=options.ModelName(),
    help="Weights to start from: a name, a file, a folder, or `scratch`.  [default: the bundled model]",
)
@click.option("--arch", metavar="VARIANT", help="Architecture, with `--from scratch`.  [default: convnext_atto]")
@click.option(
    "--epochs",
    type=click.FloatRange(0, min_open=True),
    callback=options.finite,
    help="Number of passes over the training photos.",
)
@click.option("--time", "minutes", type=_Minutes(), metavar="TIME", help="How long to train: 90s, 20m, 1.5h, 1h30m.")
@click.option("--size", type=click.IntRange(1), help="Input size in pixels.  [default: that of the weights]")
@click.option(
    "--resize-mode",
    "resize",
    type=click.Choice(["shortest", "squash", "longest"]),
    help="Fit the shortest edge and crop, squash both edges, or fit the longest edge and pad.  "
    "[default: depends on the photos' shapes]",
)
@click.option("-b", "--batch-size", type=click.IntRange(2), help="Photos in each step, over all processes.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), callback=options.finite, help="Peak learning rate.")
@click.option(
    "--freeze", is_flag=True, default=None, help="Train only the classifier, on features that are computed once."
)
@click.option(
    "--teacher", type=options.ModelName(), help="Also learn from this model: a name, a path, or a file of its logits."
)
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), help="Precision; auto measures which is faster."
)
@click.option(
    "--compile", "compile", is_flag=True, default=None, help="Compile the network with torch; worth it for long runs."
)
@click.option("--seed", type=click.IntRange(0), help="Seed of all random draws.  [default: 0]")
@click.option(
    "--recipe",
    type=options.PathName(),
    metavar="FILE",
    help="A TOML file of settings, such as another run's recipe.toml.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set any of the settings in docs/train.md."
)
@click.option(
    "--val", type=_SHARE, help="Share of photos for val, such as 0.2 or 20%, if DATA has no val.  [default: 0.15]"
)
@click.option(
    "--test", type=_SHARE, help="Share of photos for test, such as 0.2 or 20%, if DATA has no splits.  [default: 0.15]"
)
@click.option("--skip-bad", is_flag=True, help="Leave out photos and classes that cannot be used.")
@click.option("--overwrite", is_flag=True, help="Start again even if RUN contains a run.")
@click.option("--pull", is_flag=True, help="Fetch the weights first if they are not on this machine.")
@click.option("--offline", is_flag=True, help="Never open a connection.")
@click.option("-d", "--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:N, mps or xpu.")
@options.threads
@click.option(
    "-j",
    "--workers",
    type=click.IntRange(0),
    help="Processes that decode and augment photos.  [default: half of the threads]",
)
@click.option(
    "--memory",
    type=click.FloatRange(0),
    callback=options.finite,
    metavar="GB",
    help="Memory for decoded photos; if they do not fit, they are read again each time.  "
    "[default: half of the free memory]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    callback=options.finite,
    metavar="SECONDS",
    help="Time limit for reading a photo, and of processor time for decoding it.  [default: 3600 and 120]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON document.")
@options.verbosity()
def train(
    *,
    data: tuple[str, ...],
    output: str,
    settings: tuple[str, ...],
    recipe: str | None,
    val: float | None,
    test: float | None,
    skip_bad: bool,
    overwrite: bool,
    pull: bool,
    offline: bool,
    device: str,
    threads: int | None,
    workers: int | None,
    memory: float | None,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
    verbose: int,
    **own_settings: types.ClickValue,
) -> int:
    """Train a network on labelled photos, with your own labels.

    DATA is a folder with a subfolder for each class (or with such folders in train, val and test), a zip of one, a
    CSV, TSV or parquet table of paths and labels, Hugging Face parquet files of photos, tar shards, or a URL of any of
    these. The best model is written to RUN/model.safetensors.

    If a run is interrupted, run the same command again to resume it.
    """
    start = time.perf_counter()
    is_first = not environment_number("RANK", 0)  # of torchrun's processes
    quiet = quiet or not is_first
    render.set_quiet(quiet)
    if "torch" not in sys.modules:  # which takes seconds, and far more from a slow disk
        render.note("loading PyTorch")
    from convnext_cli.cli import witness
    from convnext_cli.cli.models import pull_if_missing
    from convnext_cli.training.request import TrainRequest
    from convnext_cli.training.run_folder import RunFolder
    from convnext_cli.training.settings_changes import SettingsChanges
    from convnext_cli.training.train import train as carry_out

    if "output" not in options.typed(click.get_current_context()):
        render.note(f"note: the folder of this run is {user_path(output)}; -o names another")
    request = TrainRequest(
        data=data,
        output=output,
        settings=SettingsChanges(**own_settings).updated(SettingsChanges.parse(settings)),
        settings_file=recipe or None,
        val=val,
        test=test,
        skip_bad=skip_bad,
        overwrite=overwrite,
        device=device,
        threads=threads,
        workers=workers,
        memory=memory,
        timeout=timeout,
        offline=offline,
        command=shlex.join(["convnext", *sys.argv[1:]]),
    )
    try:
        with train_view.LiveView(quiet=quiet) as view:
            result = carry_out(
                request,
                listener=view,
                in_flight=partial(witness.noting, "train", timeout),
                fetch=partial(pull_if_missing, offline=offline) if pull else None,
            )
    except KeyboardInterrupt:
        folder = RunFolder(user_path(output))
        render.note(_INTERRUPTED.format(folder.path) if folder.begun() else "interrupted before the run began")
        return 130
    return _report(result, time.perf_counter() - start, as_json=as_json) if is_first else 0


def _report(result: TrainResult, seconds: float, *, as_json: bool) -> int:
    if not result.finished:
        render.note(_INTERRUPTED.format(result.folder))
        return 130
    if as_json:
        click.echo(json.dumps(result.facts))
    else:
        train_view.print_results(result)
    if result.trained:
        render.note(f"written: {result.model}; {duration(seconds)}")
    else:
        render.note(f"{result.folder} holds a finished run, so nothing was trained; --overwrite starts again")
    render.note(f"try it: convnext classify -m {result.folder} PHOTO")
    return 0
