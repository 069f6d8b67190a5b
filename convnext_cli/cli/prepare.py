"""``convnext prepare``: make the engines of a model now, and see how fast each is on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from convnext_cli.cli import options, render, types
from convnext_cli.cli.types import ClickValue

if TYPE_CHECKING:
    from convnext_cli.runtimes.int8.calibration import Calibration
    from convnext_cli.runtimes.prepare import PrepareResult

JOBS = {"latency": "one photo", "throughput": "a folder"}


@click.command(
    epilog="\b\nExamples:\n  convnext prepare -m convnext_tiny.fb_in1k\n"
    "  convnext prepare -m convnext_tiny.fb_in1k --dtype bfloat16 --compile\n"
    "  convnext prepare -m convnext_tiny.fb_in1k --dtype int8 --calibrate photos/"
)
@options.model
@click.option(
    "--dtype",
    type=types.dtypes("float32", "bfloat16", "int8"),
    default="float32",
    show_default=True,
    help="Precision to prepare.",
)
@click.option(
    "--calibrate",
    type=options.PathName(),
    metavar="FOLDER",
    help="Photos for int8: half to find value ranges, half for testing.",
)
@click.option("--compile", "compiled", is_flag=True, help="Also measure compiled torch, which takes a minute.")
@options.threads
@click.option("--list", "listed", is_flag=True, help="List the prepared models and their folders.")
@click.option("--clear", is_flag=True, help="Remove all prepared models.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@options.quiet
def prepare(
    *, listed: bool, clear: bool, pull: bool, offline: bool, as_json: bool, quiet: bool, **fields: ClickValue
) -> int:
    """Build a model's engines for this machine, check them, and measure them.

    A model is prepared automatically when it is first used on a CPU; only int8 needs this command. Prepared engines
    are stored in the cache folder, for this version of the program and of the runtimes.
    """
    render.set_quiet(quiet)
    if listed and clear:
        raise click.UsageError("--list and --clear exclude each other.")
    if listed or clear:
        _alone("clear" if clear else "list")
        return _clear() if clear else _list(as_json)
    options.check_connection(pull=pull, offline=offline)
    from convnext_cli.runtimes import prepare as verb

    request = verb.PrepareRequest(**fields)
    if pull:
        from convnext_cli.cli.models import pull_if_missing

        pull_if_missing(fields["model"], offline=offline)
    result = verb.prepare(request)
    for note in result.notes:
        render.note(f"note: {note}")
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    if result.int8 is not None:
        _show_int8(result, result.int8, drawn=not as_json)
    elif not as_json:
        _draw(result)
    for reason in result.refused:
        render.note(f"note: {reason}")
    if result.not_kept:
        render.note(f"note: {result.not_kept}: nothing was kept")
    return 0 if result.kept else 1


def _alone(action: str) -> None:
    """Raises UsageError for options that --list or --clear would not look at."""
    useful = {"listed", "clear", "quiet"} | ({"as_json"} if action == "list" else set())
    names = {"as_json": "--json", "compiled": "--compile"}
    for name in sorted(options.typed(click.get_current_context()) - useful):
        raise click.UsageError(f"--{action} takes no {names.get(name, f'--{name}')}.")


def _show_int8(result: PrepareResult, calibration: Calibration, *, drawn: bool) -> None:
    comparison, threads = calibration.comparison, result.threads
    if drawn:
        table = render.table("", "float32", "int8", right=(1, 2))
        table.add_row("a photo, ms", f"{comparison.float32_ms:.1f}", f"{comparison.int8_ms:.1f}")
        if calibration.labelled:
            table.add_row("top-1, %", f"{comparison.float32_accuracy:.1f}", f"{comparison.int8_accuracy:.1f}")
        table.add_row("same top-1, %", "", f"{comparison.agreement:.1f}")
        render.summary().print(table)
    ranges = f"{calibration.photos} photos found the ranges, {comparison.photos} others tested it"
    model = f"{result.card.name} with {threads} thread{'s' * (threads != 1)}, batches of {comparison.batch_size}"
    render.note(f"{model}: {ranges}")
    if calibration.skipped:
        photos = f"{calibration.skipped} photo{'s' * (calibration.skipped != 1)}"
        render.note(f"note: {photos} could not be read and were left out")
    render.note(("" if comparison.pays else "warning: ") + comparison.verdict)


def _draw(result: PrepareResult) -> None:
    table = render.table("engine", "difference", *(f"{words}, ms" for words in JOBS.values()), right=(1, 2, 3))
    for engine in result.measured["throughput"]:
        difference = result.differences.get(engine)
        table.add_row(
            engine,
            "" if difference is None else f"{difference:.1e}",
            *(_milliseconds(result, job, engine) for job in JOBS),
        )
    render.summary().print(table)
    chosen = " and ".join(f"{result.chosen[job]} for {words}" for job, words in JOBS.items())
    threads = f"{result.threads} thread{'s' * (result.threads != 1)}"
    render.note(
        f"{result.card.name} in {result.dtype} with {threads}, milliseconds a photo: {chosen} "
        f"from now on · prepared in {result.seconds:.1f} s"
    )


def _milliseconds(result: PrepareResult, job: str, engine: str) -> str:
    milliseconds = result.measured[job].get(engine)
    if milliseconds is None:
        return ""
    return f"[bold]{milliseconds:.1f}[/]" if result.chosen[job] == engine else f"{milliseconds:.1f}"


def _list(as_json: bool) -> int:
    from convnext_cli.runtimes import cache

    entries = cache.entries()
    if as_json:
        click.echo(json.dumps([entry.to_dict() for entry in entries]))
        return 0
    if not entries:
        render.note(f"nothing is prepared in {cache.root()}")
        return 0
    table = render.table("model", "engine", "dtype", "made for", "MB", right=(4,))
    for entry in entries:
        made_for = ", ".join(f"{name} {number}" for name, number in entry.versions.items())
        table.add_row(render.clean(entry.name), entry.engine, entry.dtype, made_for, f"{entry.size / 1e6:.0f}")
    render.out().print(table)
    render.note(f"in {cache.root()}")
    return 0


def _clear() -> int:
    from convnext_cli.runtimes import cache

    freed = cache.clear()
    render.note(f"removed {freed / 1e6:.0f} MB from {cache.root()}")
    return 0
