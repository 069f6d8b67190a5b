"""The options that several commands share, one decorator a group of options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from convnext_cli.cli import types
from convnext_cli.cli.types import ModelName, PathName, option
from convnext_cli.runtimes.registry import DTYPES, ENGINES

__all__ = ["ModelName", "PathName", "option"]
MAX_THREADS = 1024
SIZE_ALIASES = ("--imgsz", "--img-size")
F = TypeVar("F", bound=Callable[..., Any])


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of --help."""

    def decorate(function: F) -> F:
        for add in reversed(options):
            function = add(function)
        return function

    return decorate


def finite(_context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse nan and inf, which are floats to click."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number to use here", param=parameter)
    return value


def check_connection(*, pull: bool, offline: bool) -> None:
    """Raises UsageError where a connection is asked for and forbidden at once."""
    if pull and offline:
        raise click.UsageError("--pull and --offline exclude each other.")


def typed(ctx: click.Context) -> set[str]:
    """The parameters that stand on the command line, by name."""
    from click.core import ParameterSource

    return {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def needs(module: str) -> None:
    """Raise UnavailableError when an optional library is not there, before anything is begun."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        from convnext_cli.base.errors import UnavailableError

        raise UnavailableError(f"this needs {module}", f"pip install {module}")


def numbers(text: str | None, name: str, *, positive: bool = False) -> tuple[float, ...] | None:
    """Three numbers such as "0.485,0.456,0.406", or one for all channels."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (1, 3) or not all(math.isfinite(x) and (x > 0 or not positive) for x in found):
        kind = "positive numbers" if positive else "numbers"
        raise click.BadParameter(f"{text!r} is not three {kind} such as 0.5,0.5,0.5", param_hint=name)
    if max(map(abs, found)) > 10:
        raise click.BadParameter(f"{text!r} is for pixels of 0 to 255: divide it by 255", param_hint=name)
    return found * 3 if len(found) == 1 else found


model = together(
    click.option(
        "-m",
        "--model",
        type=ModelName(),
        help="A name (see `convnext models list`), a file or a folder.  [default: the bundled model]",
    ),
    click.option("--pull", is_flag=True, help="Fetch the named model first when it is not on this machine."),
    click.option("--offline", is_flag=True, help="Never open a connection."),
)

answers = together(
    click.option(
        "--labels",
        type=types.LabelsName(),
        metavar="FILE|SET",
        help="Own names for the classes, or a bundled set of labels.",
    ),
    click.option(
        "--classes",
        metavar="NAME,ID,…",
        help="Only these labels: names, ids, or anything in WordNet above them (`dog` gathers all breeds).",
    ),
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
        help="Lowest score, such as 0.5 or 50%; below it a photo is `unknown`.",
    ),
    click.option(
        "--floors",
        type=PathName(),
        metavar="FILE",
        help="The same for single labels: lines of `label,score`.",
    ),
    click.option(
        "--softmax", is_flag=True, help="Scores that add up to 1 (default, unless trained for several labels)."
    ),
    click.option("--sigmoid", is_flag=True, help="One score of 0 to 1 for each label by itself."),
    click.option("--logits", is_flag=True, help="The network's raw outputs."),
)

threads = click.option(
    "-t",
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="Processor threads for everything together.  [default: what this process may use]",
)

machine = together(
    click.option(
        "-d",
        "--device",
        default="auto",
        show_default=True,
        callback=types.device,
        help="auto, cpu, cuda, cuda:N, cuda:all, mps or xpu.",
    ),
    click.option(
        "-e",
        "--engine",
        type=click.Choice(tuple(ENGINES)),
        default="auto",
        show_default=True,
        help="What runs the network; `auto` takes the fastest that is prepared.",
    ),
    click.option("--compile", "compiled", is_flag=True, help="Have torch compile the network: for long runs."),
    option(
        "--dtype",
        type=types.dtypes(*DTYPES),
        constants={"--half": "float16"},
        help="Precision of the network; int8 needs `convnext prepare` first.  [default: float32, or that of the file]",
    ),
    threads,
    click.option(
        "-j",
        "--workers",
        type=click.IntRange(1, MAX_THREADS),
        help="Threads that decode.  [default: as --threads]",
    ),
    option(
        "-b",
        "--batch-size",
        aliases=("--batch",),
        type=click.IntRange(1),
        help="Photos that go through the network at once.  [default: 8 on a CPU, 64 on a GPU]",
    ),
)

preprocessing = together(
    option(
        "--size",
        metavar="PIXELS|test",
        aliases=SIZE_ALIASES,
        help="Input size; `test` is the one that its makers measured best.",
    ),
    click.option(
        "--crop-pct",
        type=types.Share(0.1),
        metavar="SHARE",
        help="Share of the photo that is kept, such as 0.95 or 95%.",
    ),
    click.option(
        "--resize-mode",
        type=click.Choice(["shortest", "squash", "longest"]),
        help="Fit the shortest edge and crop, both edges, or the longest edge and pad.",
    ),
    click.option("--interpolation", type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])),
    click.option("--mean", metavar="R,G,B", help="Subtracted from pixels of 0 to 1."),
    click.option("--std", metavar="R,G,B", help="Pixels are divided by it."),
    click.option(
        "--max-pixels",
        type=click.IntRange(1),
        help="Larger photos fail instead of being decoded.  [default: 200000000]",
    ),
)

decoding = together(
    click.option(
        "--fast-decode",
        is_flag=True,
        help="Decode large JPEGs and raw files at part of their size: quicker, not exact.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        callback=finite,
        metavar="SECONDS",
        help="Give up a photo that takes longer to read, or more processor time to decode.  [default: 3600 and 120]",
    ),
)

quiet = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")


def _not_both(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    other = "verbose" if parameter.name == "quiet" else "quiet"
    if value and ctx.params.get(other):
        raise click.UsageError("-q and -v exclude each other.", ctx)
    return value


def verbosity(more: str = "") -> Callable[[F], F]:
    """-q and -v. more: what one -v adds; -vv shows where an error came from, in every command (``cli.main``)."""
    debugging = "-vv for debugging."
    return together(
        click.option("-q", "--quiet", is_flag=True, callback=_not_both, help="Say nothing but errors."),
        click.option(
            "-v", "--verbose", count=True, callback=_not_both, help=f"{more}; {debugging}" if more else debugging
        ),
    )
