"""``convnext models``: list, inspect, pull, verify and choose weights. The first two are in ``model_queries.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convnext_cli.base.files import user_path
from convnext_cli.cli import model_checks, model_queries, model_rows, render
from convnext_cli.cli.groups import Group
from convnext_cli.cli.model_queries import JSON
from convnext_cli.cli.options import ModelName

if TYPE_CHECKING:
    from rich.progress import TaskID

    from convnext_cli.zoo import Entry
    from convnext_cli.zoo.fetch import Progress

NAME = click.argument("name", metavar="NAME", type=ModelName())
YES = click.option("-y", "--yes", is_flag=True, help="Accept the terms of the licence without asking.")
OFFLINE = click.option("--offline", is_flag=True, help="Never open a connection.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def models() -> None:
    """List, inspect, pull and choose model weights.

    Only `pull` opens a connection. Weights that huggingface_hub, timm or torchvision have downloaded are used
    in place.

    \b
    Examples:
      convnext models list --max-params 30 --sort top1
      convnext models pull convnext_tiny.fb_in1k
      convnext models use convnext_tiny.fb_in1k
    """


for command in (model_queries.list_, model_queries.info, model_queries.labels_):
    models.add_command(command)


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=ModelName(paths=False))
@YES
@click.option("--origin", is_flag=True, help="Fetch the publisher's own file instead of the hub's.")
@click.option(
    "--force", is_flag=True, help="Check local files against the publisher's checksums, and fetch damaged ones."
)
@OFFLINE
@QUIET
def pull(names: tuple[str, ...], yes: bool, origin: bool, force: bool, offline: bool, quiet: bool) -> None:
    """Fetch checkpoints into the weights folder.

    Run an interrupted pull again to resume it. HTTPS_PROXY, HF_ENDPOINT (a mirror), HF_TOKEN and SSL_CERT_FILE are
    respected.

    \b
    Examples:
      convnext models pull tiny
      convnext models pull convnextv2_tiny.fcmae_ft_in1k --yes
    """
    from convnext_cli.zoo import pull as puller

    render.set_quiet(quiet)
    checkpoints = {entry.name: entry for entry in map(_entry, names)}.values()
    for entry in checkpoints:  # all questions come before the first download
        if puller.connects(entry, offline=offline, origin=origin, force=force):
            ask(entry, yes=yes)
    for entry in checkpoints:
        render.echo(str(_pull(entry, offline=offline, origin=origin, force=force)))


def pull_if_missing(name: str | Path | None, *, offline: bool = False) -> None:
    """Do what ``-m NAME --pull`` asks for before the model is opened: see ``zoo.pull.pull_missing``.

    Raises:
        UsageError: the terms of a licence are declined, or there is no terminal to ask.
    """
    from convnext_cli.zoo import pull as puller

    puller.pull_missing(name, agree=ask, progress=_progress_bars, offline=offline, listener=render.Notes())


def _entry(name: str) -> Entry:
    from convnext_cli import zoo
    from convnext_cli.base.errors import ModelError

    if entry := zoo.find(name):
        return entry
    raise ModelError(
        f"no model is called {name!r}",
        f"the nearest names are {', '.join(zoo.nearest(name))}; see `convnext models list`",
    )


def _pull(entry: Entry, *, offline: bool, origin: bool, force: bool) -> Path:
    from convnext_cli.zoo import pull as puller

    with _progress_bars() as progress:
        path = puller.pull(entry, progress=progress, offline=offline, origin=origin, force=force)
    if remark := puller.checksum_remark(path):
        render.note(f"note: {remark}")
    return path


def ask(entry: Entry, *, yes: bool = False) -> None:
    """Show the licence of a checkpoint, and ask the user to accept its terms, if it has any.

    Raises:
        UsageError: the terms are declined, or there is no terminal to ask.
    """
    import sys

    from convnext_cli.base.errors import UsageError

    licence = entry.license + (f": {entry.terms}" if entry.terms else "")
    render.note(f"{entry.name} from {entry.source}\nlicence: {licence}")
    if not entry.terms or yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{entry.name} has a licence whose terms must be accepted: {licence}",
            f"convnext models pull {entry.name} --yes",
        )
    if not click.confirm("Do you accept these terms?", err=True):
        raise UsageError(
            f"the terms of {entry.name} were not accepted, so nothing was fetched", "convnext models list --commercial"
        )


@models.command()
@NAME
def path(name: str) -> None:
    """Print the path of a model's weights on this machine.

    \b
    Example:
      python train.py --weights "$(convnext models path tiny)"
    """
    from convnext_cli import zoo

    render.echo(str(zoo.resolve(name).absolute()))


@models.command()
@NAME
@QUIET
def use(name: str, quiet: bool) -> None:
    """Make a model the default, which is used without -m.

    \b
    Examples:
      convnext models use convnext_tiny.fb_in1k
      convnext models use default
    """
    from convnext_cli import zoo
    from convnext_cli.zoo import settings

    render.set_quiet(quiet)
    path = zoo.resolve(name)
    entry = zoo.find(name)
    # A path must work in any folder; a name is stored as the full name.
    if name != "default":
        if path == user_path(name):
            name = str(path.absolute())
        elif entry:
            name = entry.name
    settings.use(name)
    back = "" if name == "default" else "; to go back to the bundled model: convnext models use default"
    render.note(f"{'the bundled model' if name == 'default' else name} is now the default{back}")


@models.command()
@NAME
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@QUIET
def remove(name: str, yes: bool, quiet: bool) -> None:
    """Delete a pulled model, or one of your own, from the weights folder.

    Without a terminal, --yes is required. Copies in other libraries' caches stay.
    """
    import sys

    from convnext_cli import zoo
    from convnext_cli.base.errors import ModelError, UsageError
    from convnext_cli.zoo import remove as remover
    from convnext_cli.zoo import settings

    render.set_quiet(quiet)
    if name == "default":
        raise ModelError(
            "the bundled model is part of the program and cannot be removed",
            "convnext models use NAME chooses another one",
        )
    targets, listed = remover.targets(name), ", ".join(map(str, remover.targets(name)))
    if not targets:
        entry = _entry(name)
        elsewhere = zoo.local_files.find(entry)
        hint = f"another library keeps it in {elsewhere[0]}" if elsewhere else "convnext models list --local"
        raise ModelError(f"{entry.name} is not in the weights folder", hint)
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                f"refusing to delete {listed} without confirmation", f"convnext models remove {name} --yes"
            )
        click.confirm(f"Delete {listed}?", abort=True, err=True)
    answered = model_rows.default_path()
    remover.remove(name)
    path = zoo.find(name)
    elsewhere = zoo.local_files.find(path) if path else []
    render.note(f"deleted {listed}" + (f"; another copy remains in {elsewhere[0]}" if elsewhere else ""))
    if answered and model_rows.default_path() is None:
        settings.use("default")
        render.note("the bundled model is the default again")


@models.command()
@click.argument("names", metavar="[NAME|PATH]...", nargs=-1, type=ModelName())
@JSON
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> int:
    """Compare the checksums of models with those of their pulls.

    Without a name, the bundled model and all pulled ones are checked. The exit status is 1 if a file has changed or
    its checksum is not known.

    \b
    Example:
      convnext models verify
    """
    from convnext_cli import zoo
    from convnext_cli.zoo.record import RECORD

    if not names:
        bundled = ["default"] if zoo.local_files.bundled() else []
        pulled = sorted(path.parent for path in zoo.folders().weights.glob(f"*/{RECORD}"))
        names = (*bundled, *map(str, pulled))
    checks = [check for name in names for check in model_checks.checks(name)]
    if as_json:
        click.echo(json.dumps(checks, indent=2))
    else:
        for check in checks:
            style = {"ok": "green", "changed": "bold red"}.get(check["status"], "yellow")
            render.out().print(
                f"[{style}]{check['status']:8}[/] {render.clean(check['path'])}  [dim]{render.clean(check['why'])}[/]",
                soft_wrap=True,
            )
    for repair in dict.fromkeys(check["repair"] for check in checks if check["repair"]):
        render.note(f"hint: {repair}")
    if not checks:
        render.note("nothing to verify: no model has been pulled")
    return 0 if all(check["status"] == "ok" for check in checks) else 1


@contextmanager
def _progress_bars() -> Iterator[Progress | None]:
    """Show progress bars on a terminal; elsewhere nothing, since the printed path shows that a pull is done."""
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=render.err(), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(render.clean(name), total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield progress
