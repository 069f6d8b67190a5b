"""The table of ``convnext models list``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convnext_cli.cli import render

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from convnext_cli.cli.model_facts import ModelRow

_TITLES = ("name", "MB", "params M", "GMACs", "input", "labels", "top-1", "licence", "where")
_FIGURES = ("MB", "params M", "GMACs", "input", "top-1")
# The columns that are left out first on a narrow screen; names are never cut or folded.
_DISPENSABLE = ("params M", "GMACs", "licence", "labels", "input")


def draw(rows: Sequence[ModelRow]) -> None:
    """Print the rows of ``models list`` as a table, with notes."""
    from rich.measure import Measurement

    console = render.out()
    cells = [_cells(row) for row in rows]
    left_out: list[str] = []
    while True:
        titles = [title for title in _TITLES if title not in left_out]
        table = _table(titles, cells)
        width = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        if width <= console.width or len(left_out) == len(_DISPENSABLE):
            break
        left_out.append(_DISPENSABLE[len(left_out)])
    if width <= console.width:
        table.width = width
        console.print(table, crop=False)
    else:
        _draw_stacked(titles[1:], cells)
    count = f"{len(rows)} {'model' if len(rows) == 1 else 'models'}"
    recommended = [row for row in rows if row.get("recommended")]
    marks = "* default" + " · + recommended" * bool(recommended)
    render.note(f"{count} · top-1 as published on ImageNet-1k, z: zero-shot · {marks}")
    if any(row["size"] and row["size_is_estimate"] for row in rows):
        render.note("≈: download size, computed from the number of parameters")
    if left_out:
        render.note(f"a wider screen, or --json, also shows: {', '.join(left_out)}")
    for row in recommended:
        render.note(_recommendation(row))
    render.note("to pull one: convnext models pull NAME · licences: docs/models.md")


def _draw_stacked(titles: list[str], rows: list[dict[str, str | Text]]) -> None:
    """Print each model on two lines, for screens that are too narrow for a table."""
    from rich.text import Text

    for cells in rows:
        shown = [(title, cells[title]) for title in titles if cells.get(title)]
        parts = [Text.assemble(text, f" {title}" if title in _FIGURES else "") for title, text in shown]
        render.out().print(cells["name"], soft_wrap=True)
        render.out().print(Text("  ") + Text(" · ").join(parts), soft_wrap=True)


def _recommendation(row: ModelRow) -> str:
    """The line that recommends a model."""
    name = row["name"]
    command = f"convnext models pull {name}" if row["path"] is None else f"convnext classify -m {name} PHOTO"
    return f"+ {row.get('recommended')}: {command} ({row['top1']:.2f} %, {_megabytes(row)} MB, {row['license']})"


def _megabytes(row: ModelRow) -> str:
    if not row["size"]:
        return ""
    digits = 0 if row["size"] >= 100e6 else 1
    return f"{'≈' * row['size_is_estimate']}{row['size'] / 1e6:.{digits}f}"


def _cells(row: ModelRow) -> dict[str, str | Text]:
    """The cells of a model's row, by column."""
    from rich.text import Text

    where, recommended = row["where"], bool(row.get("recommended"))
    colours = {"bundled": "green", "local": "green", "pull": "dim"}
    cells: dict[str, str | Text] = {
        "name": Text(render.plain(row["name"]), "bold" if row["default"] or recommended else ""),
        "licence": Text(render.plain(_short(row["license"])), "yellow" if row["terms"] else ""),
        "where": Text(where + " *" * row["default"] + " +" * recommended, colours.get(where, "")),
        "MB": _megabytes(row),
    }
    if row["params"] is None or row["input"] is None:
        return cells
    labels = row["labels"] or (f"{row['classes']} numbers" if row["task"] == "embedding" else row["task"])
    zero_shot = "z" if "imagenet-1k zero-shot top-1" in row["metrics"] else ""
    return cells | {
        "params M": f"{row['params'] / 1e6:.2f}",
        "GMACs": f"{row['gmacs']:.2f}",
        "input": str(row["input"][0]),
        "labels": Text(render.plain(labels or "")),
        "top-1": f"{row['top1']:.2f}{zero_shot}" if row["top1"] is not None else "",
    }


def _table(titles: list[str], rows: list[dict[str, str | Text]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title in _FIGURES else "left", no_wrap=True)
    for cells in rows:
        table.add_row(*(cells.get(title, "") for title in titles))
    return table


def _short(licence: str | None) -> str:
    """A licence's identifier; "non-commercial" for a sentence that contains the word."""
    licence = licence or "?"
    return "non-commercial" if " " in licence and "non-commercial" in licence else licence
