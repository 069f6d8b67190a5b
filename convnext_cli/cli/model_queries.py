"""``convnext models list``, ``info`` and ``labels``: the known models, and the facts about one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convnext_cli import labels
from convnext_cli.cli import model_facts, model_info_view, model_list_view, model_rows, render
from convnext_cli.cli.options import ModelName

if TYPE_CHECKING:
    from convnext_cli.cli.model_facts import ModelRow
    from convnext_cli.model.card import Card

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.command("list")
@click.argument("pattern", required=False)
@click.option("--local", "only_local", is_flag=True, help="Only models on this machine.")
@click.option(
    "--task",
    type=click.Choice(["classification", "embedding", "features"]),
    help="The output: classes, a vector, or feature maps.",
)
@click.option(
    "--labels",
    "label_set",
    type=click.Choice(labels.names()),
    metavar="SET",
    help="A bundled label set, such as imagenet-1k.",
)
@click.option(
    "--max-params", type=click.FloatRange(0), metavar="MILLIONS", help="Leave out models with more parameters."
)
@click.option(
    "--max-gmacs", type=click.FloatRange(0), metavar="GMACS", help="Leave out models with more multiply-adds per photo."
)
@click.option("--commercial", is_flag=True, help="Leave out models with restrictive licences.")
@click.option(
    "--sort",
    type=click.Choice(["family", "name", "size", "params", "gmacs", "top1"]),
    default="family",
    show_default=True,
    help="Order of the rows; top1 lists the most accurate first.",
)
@JSON
def list_(
    pattern: str | None,
    *,
    only_local: bool,
    task: str | None,
    label_set: str | None,
    max_params: float | None,
    max_gmacs: float | None,
    commercial: bool,
    sort: str,
    as_json: bool,
) -> int:
    """List the known checkpoints.

    PATTERN is a part of a name, or a glob. The exit status is 1 if no model matches.

    \b
    Examples:
      convnext models list tiny
      convnext models list 'convnextv2_*' --json
    """
    named = [row for row in model_rows.rows() if pattern is None or _is_called(row, pattern)]
    rows = [
        row
        for row in named
        if not (only_local and row["path"] is None)
        and task in (None, row["task"])
        and label_set in (None, row["labels"])
        and (max_params is None or (row["params"] or 0) <= max_params * 1e6)
        and (max_gmacs is None or (row["gmacs"] or 0) <= max_gmacs)
        and not (commercial and row["terms"])
    ]
    if sort == "top1":
        rows.sort(key=lambda row: -(row["top1"] or 0))
    elif sort == "name":
        rows.sort(key=lambda row: row["name"])
    elif sort == "size":
        rows.sort(key=lambda row: row["size"] or 0)
    elif sort in ("params", "gmacs"):
        rows.sort(key=lambda row: (row["params"] if sort == "params" else row["gmacs"]) or 0)
    model_rows.mark_recommended(rows)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        model_list_view.draw(rows)
    if pattern and not named:
        from convnext_cli import zoo

        render.note(f"no model is called {pattern!r}; the nearest names are {', '.join(zoo.nearest(pattern))}")
    return 0 if rows else 1


def _is_called(row: ModelRow, pattern: str) -> bool:
    from fnmatch import fnmatch

    glob = pattern.casefold() if set(pattern) & set("*?[") else f"*{pattern.casefold()}*"
    return any(fnmatch(name.casefold(), glob) for name in (row["name"], *row["aliases"]))


@click.command()
@click.argument("name", metavar="NAME|PATH", type=ModelName())
@JSON
def info(name: str, as_json: bool) -> None:
    """Show the details of a checkpoint, and of its file if it is on this machine.

    \b
    Examples:
      convnext models info tiny
      convnext models info ./checkpoint-best.pth --json
    """
    from convnext_cli import zoo
    from convnext_cli.base.errors import ModelError

    entry = zoo.find(name)
    try:
        path = zoo.resolve(name)
    except ModelError:
        if entry is None:
            raise
        chosen = zoo.find(zoo.default_model()) is entry
        facts = model_facts.row(entry.name, entry, "pull" if entry.source else "-", None, chosen)
        facts["recipe"], facts["config"] = entry.preprocessing.to_dict(), entry.config.to_dict()
        facts["pull"] = zoo.pull_line(entry)
    else:
        facts = model_facts.inspect(path)
        entry = entry if entry and path in zoo.local_files.find(entry, wish=name) else zoo.entry_for_file(path)
        facts["default"] = path.absolute() == model_rows.default_path()
        facts["aliases"] = list(entry.aliases) if entry else []
        copies = zoo.local_files.find(entry, wish=name) if entry else []
        facts["copies"] = [str(copy) for copy in dict.fromkeys([path, *copies])]
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    model_info_view.draw(facts)


@click.command("labels")
@click.argument("name", metavar="NAME|SET|PATH", type=ModelName())
@click.option("-f", "--format", "form", type=click.Choice(["lines", "json", "csv"]), default="lines", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as -f json.")
def labels_(name: str, form: str, as_json: bool) -> None:
    """Print the labels of a model or of a bundled set: index, id and label of each class.

    \b
    Examples:
      convnext models labels default
      convnext models labels imagenet-1k -f csv
    """
    from convnext_cli.base.tables import csv_line

    if as_json and form == "csv":
        raise click.UsageError("--json and --format csv exclude each other.")
    labels = _label_set(name)
    rows = list(zip(range(len(labels.names)), labels.ids, labels.names, strict=True))
    if as_json or form == "json":
        click.echo(json.dumps([{"index": index, "id": identity, "label": label} for index, identity, label in rows]))
    elif form == "csv":
        for row in (("index", "id", "label"), *rows):
            click.echo(csv_line(row), nl=False)
    else:
        for index, identity, label in rows:
            click.echo(f"{index}\t{render.plain(identity or '')}\t{render.plain(label)}")


def _label_set(name: str) -> labels.LabelSet:
    from convnext_cli import checkpoints, zoo
    from convnext_cli.base.errors import ModelError
    from convnext_cli.runtimes import registry

    if name in labels.names() and not Path(name).exists():
        return labels.load(name)
    try:
        path = zoo.resolve(name)
    except ModelError:
        entry = zoo.find(name)
        if entry is None or entry.labels is None:
            raise
        return labels.load(entry.labels) if isinstance(entry.labels, str) else entry.labels
    card = _program_card(path) if registry.is_program(path) else checkpoints.read_card(path)
    if card.task != "classification":
        raise ModelError(f"{card.name or name} has no classes", "convnext models list --task classification")
    return card.label_set()


def _program_card(path: Path) -> Card:
    from convnext_cli.base.errors import ModelError
    from convnext_cli.runtimes import inspection

    card, _ = inspection.inspect(path)
    if card is None:
        raise ModelError(
            f"{path.name} has no card that names its classes", f"convnext classify -m {path} PHOTO runs it"
        )
    return card
