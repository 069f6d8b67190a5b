"""``convnext models``: list, inspect, pull, verify and choose weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import model_checks, model_view, render
from convnext_cli.cli.options import ModelName

if TYPE_CHECKING:
    from convnext_cli.zoo import Entry

NAME = click.argument("name", metavar="NAME", type=ModelName())
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
YES = click.option("-y", "--yes", is_flag=True, help="Accept the licence's terms without being asked.")
OFFLINE = click.option("--offline", is_flag=True, envvar="HF_HUB_OFFLINE", help="Never open a connection.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def models() -> None:
    """List, inspect, pull and choose model weights.

    Only `pull` opens a connection. Weights that huggingface_hub, timm or torchvision have downloaded are used
    where they lie.

    \b
    Examples:
      convnext models list --max-params 30 --sort top1
      convnext models pull convnext_tiny.fb_in1k
      convnext models use convnext_tiny.fb_in1k
    """


# list -----------------------------------------------------------------------------------------------------------------


@models.command("list")
@click.argument("pattern", required=False)
@click.option("--local", "only_local", is_flag=True, help="Only what is on this machine.")
@click.option(
    "--task",
    type=click.Choice(["classification", "embedding", "features"]),
    help="What comes out: classes, a vector, or feature maps.",
)
@click.option("--labels", type=click.Choice(["imagenet-1k", "imagenet-12k", "imagenet-22k"]), help="The label set.")
@click.option("--max-params", type=click.FloatRange(0), metavar="MILLIONS", help="No larger than this.")
@click.option("--max-gmacs", type=click.FloatRange(0), metavar="GMACS", help="No slower than this.")
@click.option("--commercial", is_flag=True, help="Leave out licences that ask for something.")
@click.option(
    "--sort",
    type=click.Choice(["family", "name", "params", "gmacs", "top1"]),
    default="family",
    show_default=True,
    help="Order of the rows; top1 puts the best first.",
)
@JSON
def list_(pattern: str | None, **given: Any) -> None:
    """List the known checkpoints.

    PATTERN is a part of a name, or a glob.

    \b
    Examples:
      convnext models list tiny
      convnext models list 'convnextv2_*' --json
    """
    rows = [row for row in _rows() if _wanted(row, pattern, given)]
    key = given["sort"]
    if key == "top1":
        rows.sort(key=lambda row: -(row["top1"] or 0))
    elif key == "name":
        rows.sort(key=lambda row: row["name"])
    elif key != "family":
        rows.sort(key=lambda row: row[key] or 0)
    if given["as_json"]:
        click.echo(json.dumps(rows, indent=2))
        return
    model_view.draw_list(rows)


def _rows() -> Iterator[dict[str, Any]]:
    from convnext_cli import zoo

    chosen = zoo.default_model()
    if bundled := zoo.local.bundled():
        card = zoo.local.embedded_card(bundled)
        yield model_view.row("default", card, "bundled", bundled, chosen == "default")
    for entry in zoo.entries():
        copies = zoo.local.find(entry)
        where = "local" if copies else "pull" if entry.hub or entry.url else "-"
        own = zoo.find(chosen) is entry
        yield model_view.row(entry.name, entry, where, copies[0] if copies else None, own)


def _wanted(row: dict[str, Any], pattern: str | None, given: dict[str, Any]) -> bool:
    from fnmatch import fnmatch

    if pattern:
        names = [n.casefold() for n in (row["name"], *row["aliases"])]
        glob = pattern.casefold() if set(pattern) & set("*?[") else f"*{pattern.casefold()}*"
        if not any(fnmatch(n, glob) for n in names):
            return False
    return (
        not (given["only_local"] and row["path"] is None)
        and given["task"] in (None, row["task"])
        and given["labels"] in (None, row["labels"])
        and (given["max_params"] is None or (row["params"] or 0) <= given["max_params"] * 1e6)
        and (given["max_gmacs"] is None or (row["gmacs"] or 0) <= given["max_gmacs"])
        and not (given["commercial"] and row["terms"])
    )


# info -----------------------------------------------------------------------------------------------------------------


@models.command()
@click.argument("name", metavar="NAME|PATH", type=ModelName())
@JSON
def info(name: str, as_json: bool) -> None:
    """Show all that is known of a checkpoint, and of its file when it is on this machine.

    \b
    Examples:
      convnext models info tiny
      convnext models info ./checkpoint-best.pth --json
    """
    from convnext_cli import zoo
    from convnext_cli.errors import ModelError

    entry = zoo.find(name)
    try:
        path = zoo.resolve(name)
    except ModelError:
        if entry is None:
            raise
        told = model_view.row(
            entry.name, entry, "pull" if entry.source else "-", None, zoo.default_model() == entry.name
        )
        told |= {"recipe": entry.recipe.to_dict(), "config": entry.config.to_dict(), "pull": zoo.pull_line(entry)}
    else:
        told = model_view.inspect(path)
        # a name whose copies lie in several places, as they are searched
        told["copies"] = [str(copy) for copy in zoo.local.find(entry, wish=name)] if entry else [str(path)]
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    model_view.draw_info(told)


# pull, path, use, remove ----------------------------------------------------------------------------------------------


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=ModelName())
@YES
@click.option("--origin", is_flag=True, help="Fetch the publisher's own file instead of the hub's.")
@OFFLINE
@QUIET
def pull(names: tuple[str, ...], yes: bool, origin: bool, offline: bool, quiet: bool) -> None:
    """Fetch checkpoints into the weights folder.

    A pull that was cut goes on where it stopped when it is run again. HTTPS_PROXY, HF_ENDPOINT (a mirror), HF_TOKEN
    and SSL_CERT_FILE are obeyed.

    \b
    Examples:
      convnext models pull tiny
      convnext models pull convnextv2_tiny.fcmae_ft_in1k --yes
    """
    render.set_quiet(quiet)
    wanted = [_known(name) for name in names]
    for entry in wanted:
        path = _pull(entry, yes=yes, offline=offline, origin=origin)
        click.echo(str(path))


def pull_if_missing(name: str | None, *, offline: bool = False) -> None:
    """What ``-m NAME --pull`` does before it resolves the name: nothing for paths and for what is here.

    Raises what ``pull`` does; UsageError when a licence asks for something and nobody is there to answer.
    """
    from convnext_cli import zoo
    from convnext_cli.errors import ModelError

    name = name or zoo.default_model()
    try:
        zoo.resolve(name)
    except ModelError:
        if entry := zoo.find(name):
            _pull(entry, yes=False, offline=offline)


def _known(name: str) -> Entry:
    from convnext_cli import zoo
    from convnext_cli.errors import ModelError

    if entry := zoo.find(name):
        return entry
    raise ModelError(
        f"no known model is called {name!r}",
        f"the nearest names are {', '.join(zoo.nearest(name))}; see `convnext models list`",
    )


def _pull(entry: Entry, *, yes: bool, offline: bool = False, origin: bool = False) -> Path:
    from convnext_cli import zoo
    from convnext_cli.zoo import pull as puller

    place = zoo.folders().weights / entry.name
    if puller.complete(place) is None and not (offline or puller.forbidden()):
        _agree(entry, yes)
    with model_view.progress_bars() as progress:
        path = puller.pull(entry, progress=progress, offline=offline, origin=origin)
    noted = (puller.record(place) or {"files": {}})["files"].get(path.name, {})
    if noted.get("checked") == "none":
        render.note("note: its publisher gives no checksum; the sha256 of what arrived was noted for `models verify`")
    return path


def _agree(entry: Entry, yes: bool) -> None:
    """Show the licence, and ask when it asks for something."""
    import sys

    from convnext_cli.errors import UsageError

    licence = entry.license + (f": {entry.terms}" if entry.terms else "")
    render.note(f"{entry.name} from {entry.source}\nlicence: {licence}")
    if not entry.terms or yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"the licence of {entry.name} is {licence}",
            f"to accept it: convnext models pull {entry.name} --yes",
        )
    click.confirm("Do you accept these terms?", abort=True, err=True)


@models.command()
@NAME
def path(name: str) -> None:
    """Print where a model's weights lie on this machine.

    \b
    Example:
      python train.py --weights "$(convnext models path tiny)"
    """
    from convnext_cli import zoo

    click.echo(str(zoo.resolve(name)))


@models.command()
@NAME
@QUIET
def use(name: str, quiet: bool) -> None:
    """Make a model the one that answers when no -m is given.

    \b
    Examples:
      convnext models use convnext_tiny.fb_in1k
      convnext models use default
    """
    from convnext_cli import zoo
    from convnext_cli.zoo import settings

    render.set_quiet(quiet)
    found = zoo.resolve(name)
    entry = zoo.find(name)
    # A path must hold wherever the next command is run; a name is kept as its full name.
    if name != "default":
        name = entry.name if entry and found in zoo.local.find(entry) else name
        name = str(Path(name).absolute()) if Path(name).exists() and not entry else name
    settings.use(name)
    render.note(f"{name} answers from now on; back to the bundled model: convnext models use default")


@models.command()
@NAME
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@QUIET
def remove(name: str, yes: bool, quiet: bool) -> None:
    """Delete a pulled model from the weights folder.

    Copies in other libraries' caches stay.
    """
    import sys

    from convnext_cli import zoo
    from convnext_cli.errors import ModelError
    from convnext_cli.zoo import pull as puller
    from convnext_cli.zoo import settings

    render.set_quiet(quiet)
    if name == "default":
        raise ModelError("the bundled model is part of the program", "use another one: convnext models use NAME")
    entry = _known(name)
    place = zoo.folders().weights / entry.name
    if place.is_dir() and not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(f"Delete {place}?", abort=True, err=True)
    removed = puller.remove(entry)
    elsewhere = zoo.local.find(entry)
    if removed is None:
        hint = f"it lies in {elsewhere[0]}, which is another library's" if elsewhere else "there is nothing to do"
        raise ModelError(f"{entry.name} was not pulled", hint)
    render.note(f"deleted {removed}" + (f"; another copy stays in {elsewhere[0]}" if elsewhere else ""))
    if zoo.find(settings.default_model()) is entry and not elsewhere:
        settings.use("default")
        render.note("the bundled model answers again when no -m is given")


# verify ---------------------------------------------------------------------------------------------------------------


@models.command()
@click.argument("names", metavar="[NAME|PATH]...", nargs=-1, type=ModelName())
@JSON
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> int:
    """Compute checksums anew and compare them with what was pulled.

    Without a name: the bundled model and all pulled ones. Exit status 1 when a file has changed, or when there is
    nothing to compare it with.

    \b
    Example:
      convnext models verify
    """
    from convnext_cli import zoo

    if not names:
        bundled = ["default"] if zoo.local.bundled() else []
        pulled = sorted(p.parent for p in zoo.folders().weights.glob("*/pulled.json"))
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
    return 0 if all(check["status"] == "ok" for check in checks) else 1
