"""``convnext prepare``: make the engines of a model now, and see how fast each is on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import options, render, types

if TYPE_CHECKING:
    from pathlib import Path

    from convnext_cli.runtimes.build import Prepared

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
    help="Photos to find the ranges of int8 with, and to test it on.",
)
@click.option("--compile", "compiled", is_flag=True, help="Measure compiled torch too, which takes a minute.")
@options.threads
@click.option("--list", "listed", is_flag=True, help="List what is prepared, and where.")
@click.option("--clear", is_flag=True, help="Remove all that is prepared.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@options.quiet
def prepare(**given: Any) -> int:
    """Make a model's engines, prove them against the network, and measure them.

    `classify` does it by itself when a model is used for the first time; int8 has to be asked for here. What is made
    lies in the cache folder, for this version of the program and of the runtimes.
    """
    render.set_quiet(given["quiet"])
    if given["listed"] and given["clear"]:
        raise click.UsageError("--list and --clear exclude each other.")
    if given["listed"] or given["clear"]:
        _alone("clear" if given["clear"] else "list")
        return _clear() if given["clear"] else _list(given["as_json"])
    if (given["dtype"] == "int8") != (given["calibrate"] is not None):
        raise click.UsageError("--dtype int8 and --calibrate FOLDER go together.")
    if given["dtype"] == "int8" and given["compiled"]:
        raise click.UsageError("--compile is for torch, which does not compute in int8.")
    options.not_offline(given)

    from convnext_cli import zoo
    from convnext_cli.base.threads import usable_threads

    if given["pull"]:
        from convnext_cli.cli.models import pull_if_missing

        pull_if_missing(given["model"], offline=given["offline"])
    path = zoo.resolve(given["model"] or zoo.default_model())
    _refuse_program(path)
    threads = given["threads"] or usable_threads()
    if given["dtype"] == "int8":
        return _int8(path, given["calibrate"], threads, given["as_json"])
    from convnext_cli.runtimes import build as making

    done = making.prepare(path, dtype=given["dtype"], threads=threads, compiled=given["compiled"])
    for engine in done.engines.values():
        engine.close()
    for note in done.notes:
        render.note(f"note: {note}")
    if given["as_json"]:
        click.echo(json.dumps(_told(done, given["dtype"], threads)))
    else:
        _draw(done, given["dtype"], threads)
    for reason in done.refused:
        render.note(f"note: {reason}")
    if done.kept:
        render.note(f"note: {done.kept}: nothing was kept")
    return 1 if done.kept or not done.proof else 0


def _alone(action: str) -> None:
    """Raises UsageError for options that --list or --clear would not look at."""
    useful = {"listed", "clear", "quiet"} | ({"as_json"} if action == "list" else set())
    names = {"as_json": "--json", "compiled": "--compile"}
    for name in sorted(options.typed(click.get_current_context()) - useful):
        raise click.UsageError(f"--{action} takes no {names.get(name, f'--{name}')}.")


def _refuse_program(path: Path) -> None:
    from convnext_cli.base.errors import UsageError
    from convnext_cli.runtimes.registry import is_program

    if is_program(path):
        raise UsageError(
            f"{path.name} is made for its own runtime already: there is nothing to prepare",
            f"use it as it is: convnext classify -m {path.name} PHOTO",
        )


def _int8(path: Path, folder: str, threads: int, as_json: bool) -> int:
    from convnext_cli import checkpoints
    from convnext_cli.predict.open import BATCH_SIZE
    from convnext_cli.runtimes.int8.calibration import calibrate

    card = checkpoints.read_card(path)
    done = calibrate(path, card, folder, threads=threads, batch_size=BATCH_SIZE)
    found = done.comparison
    if as_json:
        click.echo(json.dumps({"model": card.name, "dtype": "int8", "threads": threads, **found.to_dict()}))
    else:
        table = render.table("", "float32", "int8", right=(1, 2))
        table.add_row("a photo, ms", f"{found.float32_ms:.1f}", f"{found.int8_ms:.1f}")
        if done.labelled:
            table.add_row("top-1, %", f"{found.float32_accuracy:.1f}", f"{found.int8_accuracy:.1f}")
        table.add_row("same top-1, %", "", f"{found.agreement:.1f}")
        render.out().print(table)
    ranges = f"{done.photos} photos found the ranges, {found.photos} others tested it"
    render.note(f"{card.name} with {threads} thread{'s' * (threads != 1)}, batches of {found.batch_size}: {ranges}")
    if done.skipped:
        render.note(f"note: {done.skipped} photo{'s' * (done.skipped != 1)} could not be read and were left out")
    render.note(("" if found.pays else "warning: ") + found.verdict)
    if done.kept:
        render.note(f"note: {done.kept}: nothing was kept")
    return 1 if done.kept else 0


def _told(done: Prepared, dtype: str, threads: int) -> dict[str, Any]:
    return {
        "model": done.card.name,
        "model_sha256": done.card.sha256,
        "dtype": dtype,
        "threads": threads,
        "difference": done.proof,
        "ms_per_photo": done.choice.measured,
        "chosen": {job: done.choice.best(job) for job in JOBS},
        "seconds": round(done.seconds, 3),
        "refused": done.refused,
    }


def _draw(done: Prepared, dtype: str, threads: int) -> None:
    table = render.table("engine", "difference", *(f"{words}, ms" for words in JOBS.values()), right=(1, 2, 3))
    for engine in done.engines:
        times = [done.choice.measured[job].get(engine) for job in JOBS]
        best = [done.choice.best(job) == engine for job in JOBS]
        table.add_row(
            engine,
            f"{done.proof[engine]:.1e}" if engine in done.proof else "",
            *("" if t is None else f"[bold]{t:.1f}[/]" if b else f"{t:.1f}" for t, b in zip(times, best, strict=True)),
        )
    render.out().print(table)
    chosen = " and ".join(f"{done.choice.best(job)} for {words}" for job, words in JOBS.items())
    render.note(
        f"{done.card.name} in {dtype} with {threads} thread{'s' * (threads != 1)}, milliseconds a photo: {chosen} "
        f"from now on · prepared in {done.seconds:.1f} s"
    )


def _list(as_json: bool) -> int:
    from convnext_cli.runtimes import cache

    rows: list[dict[str, Any]] = [
        {
            "model": entry.name,
            "engine": entry.engine,
            "dtype": entry.dtype,
            "versions": entry.versions,
            "difference": entry.proof,
            "bytes": entry.size,
            "path": str(entry.folder),
        }
        for entry in cache.entries()
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return 0
    if not rows:
        render.note(f"nothing is prepared in {cache.root()}")
        return 0
    table = render.table("model", "engine", "dtype", "made for", "MB", right=(4,))
    for row in rows:
        made_for = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
        table.add_row(render.clean(row["model"]), row["engine"], row["dtype"], made_for, f"{row['bytes'] / 1e6:.0f}")
    render.out().print(table)
    render.note(f"in {cache.root()}")
    return 0


def _clear() -> int:
    from convnext_cli.runtimes import cache

    freed = cache.clear()
    render.note(f"removed {freed / 1e6:.0f} MB from {cache.root()}")
    return 0
