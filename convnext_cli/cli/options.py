"""The options that several commands share, one decorator a group of options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import click

from convnext_cli.cli import types
from convnext_cli.cli.types import ModelName, PathName, option
from convnext_cli.runtimes.registry import DTYPES, ENGINES

__all__ = ["ModelName", "PathName", "option"]
MAX_THREADS = 1024
SIZE_ALIASES = ("--imgsz", "--img-size")
F = TypeVar("F", bound=Callable[..., object])
V = TypeVar("V")


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of --help."""

    def decorate(function: F) -> F:
        for add in reversed(options):
            function = add(function)
        return function

    return decorate


def finite(_context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse nan and inf, which click accepts as floats."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number", param=parameter)
    return value


def check_connection(*, pull: bool, offline: bool) -> None:
    """Raise UsageError for --pull together with --offline."""
    if pull and offline:
        raise click.UsageError("--pull and --offline exclude each other.")


def typed(ctx: click.Context) -> set[str]:
    """The names of the parameters that the user typed."""
    from click.core import ParameterSource

    return {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def numbers(text: str | None, name: str, *, positive: bool = False) -> tuple[float, ...] | None:
    """Three numbers such as "0.485,0.456,0.406", or one for all channels."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(math.isfinite(x) and (x > 0 or not positive) for x in values):
        kind = "positive numbers" if positive else "numbers"
        raise click.BadParameter(f"{text!r} is not three {kind} such as 0.5,0.5,0.5", param_hint=name)
    if max(map(abs, values)) > 10:
        raise click.BadParameter(f"{text!r} is for pixels of 0 to 255: divide it by 255", param_hint=name)
    return values * 3 if len(values) == 1 else values


model = together(
    click.option(
        "-m",
        "--model",
        type=ModelName(),
        help="A name (see `convnext models list`), a file or a folder.  [default: the bundled model]",
    ),
    click.option("--pull", is_flag=True, help="Fetch the model first if it is not on this machine."),
    click.option("--offline", is_flag=True, help="Never open a connection."),
)

labels = together(
    click.option(
        "--labels",
        type=types.LabelsName(),
        metavar="FILE|SET",
        help="A file with your own names for the classes, or a bundled label set.",
    ),
    click.option(
        "--classes",
        metavar="NAME,ID,…",
        help="Choose only among these labels: names, ids, or anything above them in WordNet (`dog`: all breeds).",
    ),
)

answers = together(
    labels,
    option(
        "-k",
        "--top",
        default=5,
        show_default=True,
        type=click.IntRange(0),
        metavar="N",
        aliases=("--topk", "--top-k"),
        help="Number of labels for each photo; 0 for all.",
    ),
    option(
        "--min-score",
        type=types.Share(high=None),
        metavar="SCORE",
        aliases=("--conf", "--threshold"),
        help="Threshold, such as 0.5 or 50%; a photo that scores less is `unknown`.",
    ),
    click.option(
        "--floors",
        type=PathName(),
        metavar="FILE",
        help="Thresholds for single labels: a file with lines of `label,score`.",
    ),
    click.option(
        "--sure",
        type=types.Share(open=(True, True)),
        metavar="SHARE",
        help="Answer only where this share of answers is right, such as 0.95 or 95%: a label, a broader group, or "
        "`unknown`. It needs a calibrated model (see `convnext calibrate`).",
    ),
    click.option(
        "--sets",
        type=click.Choice(["0.8", "0.9", "0.95", "0.99"]),
        help="Also print a set of labels that holds the right one for this share of photos.",
    ),
    click.option(
        "--softmax",
        is_flag=True,
        help="Print scores that add up to 1 (the default for models with one label per photo).",
    ),
    click.option("--sigmoid", is_flag=True, help="Print an independent score from 0 to 1 for each label."),
    click.option("--logits", is_flag=True, help="Print the network's raw outputs."),
)

threads = click.option(
    "-t",
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="Number of threads.  [default: as many as this process may use]",
)

device = click.option(
    "-d",
    "--device",
    default="auto",
    show_default=True,
    callback=types.device,
    help="Device: auto, cpu, cuda, cuda:N, cuda:all, mps or xpu.",
)

machine = together(
    device,
    click.option(
        "-e",
        "--engine",
        type=click.Choice(tuple(ENGINES)),
        default="auto",
        show_default=True,
        help="Engine that runs the network; `auto` selects the fastest prepared one.",
    ),
    click.option("--compile", "compiled", is_flag=True, help="Compile the network with torch; worth it for long runs."),
    option(
        "--dtype",
        type=types.dtypes(*DTYPES),
        constants={"--half": "float16"},
        help="Precision of the network; int8 needs `convnext prepare` first.  [default: float32, or as exported]",
    ),
    threads,
    click.option(
        "-j",
        "--workers",
        type=click.IntRange(1, MAX_THREADS),
        help="Threads that decode photos.  [default: the same as --threads]",
    ),
    option(
        "-b",
        "--batch-size",
        aliases=("--batch",),
        type=click.IntRange(1),
        help="Photos in each batch.  [default: 8 on a CPU, 64 on a GPU]",
    ),
)

preprocessing = together(
    option(
        "--size",
        metavar="PIXELS|test",
        aliases=SIZE_ALIASES,
        help="Input size; `test` is the size at which the publisher measured the best accuracy.",
    ),
    click.option(
        "--crop-pct",
        type=types.Share(0.1),
        metavar="SHARE",
        help="Share of the photo that the crop keeps, such as 0.95 or 95%.",
    ),
    click.option(
        "--resize-mode",
        type=click.Choice(["shortest", "squash", "longest"]),
        help="Fit the shortest edge and crop, squash both edges, or fit the longest edge and pad.",
    ),
    click.option(
        "--interpolation",
        type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
        help="Filter for resizing.",
    ),
    click.option("--mean", metavar="R,G,B", help="Mean to subtract from pixels, which are scaled to 0 to 1."),
    click.option("--std", metavar="R,G,B", help="Standard deviation to divide pixels by."),
    click.option(
        "--max-pixels",
        type=click.IntRange(1),
        help="Larger photos fail instead of being decoded.  [default: 200000000]",
    ),
)

decoding = together(
    click.option(
        "--pixels",
        type=click.Choice(["exact", "close", "fast"]),
        help="exact: as the model's authors do. close: resize with a quicker kernel, which rounds differently. "
        "fast: also decode large JPEGs and raw files at a reduced size.  [default: exact]",
    ),
    click.option("--fast-decode", is_flag=True, help="The same as --pixels fast."),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        callback=finite,
        metavar="SECONDS",
        help="Time limit for reading a photo, and of processor time for decoding it.  [default: 3600 and 120]",
    ),
)

quiet = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")


def _not_both(ctx: click.Context, parameter: click.Parameter, value: V) -> V:
    other = "verbose" if parameter.name == "quiet" else "quiet"
    if value and ctx.params.get(other):
        raise click.UsageError("-q and -v exclude each other.", ctx)
    return value


def verbosity(more: str = "") -> Callable[[F], F]:
    """The options -q and -v.

    Args:
        more: the help for one -v. With -vv, every command also shows the traceback of an error.
    """
    debugging = "-vv adds debug output."
    return together(
        click.option("-q", "--quiet", is_flag=True, callback=_not_both, help="Print errors only."),
        click.option(
            "-v", "--verbose", count=True, callback=_not_both, help=f"{more}; {debugging}" if more else debugging
        ),
    )
