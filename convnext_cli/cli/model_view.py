"""The output of ``convnext models`` for a model: as JSON values, and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

from convnext_cli.base.text import JsonObject
from convnext_cli.cli import render

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.table import Table
    from rich.text import Text

    from convnext_cli.checkpoints import Checkpoint
    from convnext_cli.model.card import Card
    from convnext_cli.zoo import Entry
    from convnext_cli.zoo.fetch import Progress


class ModelRow(TypedDict):
    """One JSON object of ``models list``; unknown facts of weights without a card are None."""

    name: str
    where: str
    path: str | None
    default: bool
    aliases: list[str]
    size: int | None
    size_is_estimate: bool
    architecture: str | None
    params: int | None
    gmacs: float | None
    input: list[int] | None
    labels: str | None
    classes: int | None
    task: str | None
    top1: float | None
    license: str | None
    terms: str | None
    metrics: dict[str, float]
    source: str
    recommended: NotRequired[str | None]


class Statistics(TypedDict):
    """Figures that show whether weights are plausible."""

    tensors: int
    dtypes: dict[str, int]
    largest: float
    layer_scale: float | None


class ModelFacts(ModelRow, total=False):
    """The JSON object of ``models info``. A model that is not on this machine has ``pull``, and no file."""

    pull: str
    copies: list[str]
    layout: str
    file_sha256: str | None
    sha256: str
    temperature: float | None
    statistics: Statistics | None
    warnings: list[str]
    recipe: JsonObject
    config: JsonObject
    export: JsonObject


def row(name: str, source: Card | Entry | None, where: str, path: Path | None, chosen: bool) -> ModelFacts:
    """One JSON object of ``models list``.

    Args:
        name: of the model.
        source: its card or entry; None if neither is known.
        where: where it is: "bundled", "local", "pull" or "-".
        path: of its weights on this machine.
        chosen: whether it is the default.
    """
    facts: ModelFacts = {
        "name": name,
        "where": where,
        "path": None if path is None else str(path),
        "default": chosen,
        "aliases": list(getattr(source, "aliases", ())),
        "size": None if path is None else size_of(path),
        "size_is_estimate": path is None,
        "architecture": None,
        "params": None,
        "gmacs": None,
        "input": None,
        "labels": None,
        "classes": None,
        "task": None,
        "top1": None,
        "license": None,
        "terms": None,
        "metrics": {},
        "source": "",
    }
    if source is None:
        return facts
    if path is None and where == "pull":
        from convnext_cli.zoo.recommendation import download_size

        facts["size"] = download_size(source.config)
    facts["architecture"] = source.architecture
    facts["params"] = source.config.num_parameters
    facts["gmacs"] = round(source.config.gmacs(*source.preprocessing.size), 3)
    facts["input"] = list(source.preprocessing.size)
    facts["labels"] = source.labels if source.labels is None or isinstance(source.labels, str) else source.labels.name
    facts["classes"] = source.config.num_labels
    facts["task"] = source.task
    facts["top1"] = getattr(source, "top1", None)
    facts["license"] = source.license
    facts["terms"] = getattr(source, "terms", source.license if "non-commercial" in source.license else "")
    facts["metrics"] = dict(source.metrics)
    facts["source"] = source.source
    return facts


def size_of(path: Path) -> int | None:
    """The size of a model on this machine in bytes, with all its files; None if they are missing."""
    from convnext_cli import zoo

    files = zoo.local_files.shards(path) if path.name.endswith(".index.json") else _parts(path)
    try:
        return sum(file.stat().st_size for file in files)
    except OSError:
        return None


def inspect(path: Path) -> ModelFacts:
    """The JSON object of ``models info`` for weights on this machine.

    Raises:
        ModelError: the weights cannot be used.
    """
    from convnext_cli import checkpoints, zoo
    from convnext_cli.runtimes import registry
    from convnext_cli.zoo.record import sha256

    if registry.is_program(path):
        return _inspect_program(path)
    checkpoint = checkpoints.load(path, dtype="stored", verify=True)
    card, file = checkpoint.card, checkpoint.path
    facts = row(card.name or file.stem, card, "bundled" if file == zoo.local_files.bundled() else "local", file, False)
    if entry := zoo.entry_for_file(file):
        facts["terms"], facts["license"] = entry.terms, card.license or entry.license
        facts["source"] = card.source or entry.source
    facts["layout"], facts["file_sha256"], facts["size"] = checkpoint.layout, sha256(file), file.stat().st_size
    facts["statistics"], facts["warnings"] = _statistics(checkpoint), list(checkpoint.notes)
    _add_card(facts, card)
    return facts


def _add_card(facts: ModelFacts, card: Card) -> None:
    facts["sha256"], facts["temperature"] = card.sha256, card.temperature
    facts["recipe"], facts["config"] = card.preprocessing.to_dict(), card.config.to_dict()


def _inspect_program(path: Path) -> ModelFacts:
    """The JSON object for a file of ``convnext export``, which is not run."""
    from dataclasses import asdict

    from convnext_cli.base.errors import ModelError
    from convnext_cli.runtimes import inspection
    from convnext_cli.zoo.record import sha256

    card, notes = inspection.inspect(path)
    if card is None or card.export is None:
        raise ModelError(
            f"{path.name} was made by another program, and has no card that describes it",
            f"convnext classify -m {path} PHOTO runs it",
        )
    facts = row(card.name or path.stem, card, "local", path, False)
    facts["layout"] = f"{card.export.format}, {card.export.dtype}"
    facts["file_sha256"] = sha256(path) if path.is_file() else None
    facts["size"] = sum(file.stat().st_size for file in _parts(path))
    facts["statistics"], facts["warnings"], facts["export"] = None, notes, asdict(card.export)
    _add_card(facts, card)
    return facts


def _parts(path: Path) -> list[Path]:
    """The files of an export: all files of a package; for OpenVINO and large ONNX files the weights, too."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    weights = path.with_suffix(".bin") if path.suffix.lower() == ".xml" else path.with_name(f"{path.name}.data")
    return [file for file in (path, weights) if file.is_file()]


def _statistics(checkpoint: Checkpoint) -> Statistics:
    dtypes: dict[str, int] = {}
    largest, scales = 0.0, []
    for name, tensor in checkpoint.tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        dtypes[kind] = dtypes.get(kind, 0) + tensor.numel()
        low, high = (float(x) for x in tensor.aminmax())
        largest = max(largest, -low, high)
        if name.endswith(".gamma") and ".grn." not in name:
            scales.append(float(tensor.float().abs().mean()))
    return {
        "tensors": len(checkpoint.tensors),
        "dtypes": dtypes,
        "largest": largest,
        "layer_scale": sum(scales) / len(scales) if scales else None,
    }


_TITLES = ("name", "MB", "params M", "GMACs", "input", "labels", "top-1", "licence", "where")
_FIGURES = ("MB", "params M", "GMACs", "input", "top-1")
# The columns that are left out first on a narrow screen; names are never cut or folded.
_DISPENSABLE = ("params M", "GMACs", "licence", "labels", "input")


def draw_list(rows: Sequence[ModelRow]) -> None:
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


def draw_info(facts: ModelFacts) -> None:
    """Print the details of a model as text."""
    from rich.text import Text

    lines = [(render.plain(title), render.plain(text)) for title, text in _lines(facts)]
    width = max(len(title) for title, _ in lines)
    for title, text in lines:
        line = Text.assemble((f"{title:{width}}  ", "dim"), (text, "bold" if title == "name" else ""))
        render.out().print(line, soft_wrap=True)
    for warning in facts.get("warnings", ()):
        render.note(f"note: {warning}")


def _lines(facts: ModelFacts) -> Iterator[tuple[str, str]]:
    steps, config = facts["recipe"], facts["config"]
    yield "name", facts["name"]
    yield (
        "architecture",
        (
            f"{facts['architecture'] or 'not a named variant'}: depths {_dashed(config['depths'])}, "
            f"widths {_dashed(config['hidden_sizes'])}, patch {config['patch_size']}"
        ),
    )
    yield "size", f"{(facts['params'] or 0) / 1e6:.2f} M parameters, {facts['gmacs']:.2f} GMACs at {steps['size'][0]}"
    heads = {"classification": "classes", "embedding": "numbers (an embedding)"}
    yield (
        "head",
        (
            f"{facts['classes']} {heads[facts['task']]}" + (f", {facts['labels']}" if facts["labels"] else "")
            if facts["task"] in heads
            else "none: feature maps"
        ),
    )
    fit = steps["resize"] if steps["resize"] != "squash" else "squash (aspect ratio lost)"
    yield (
        "input",
        (
            f"{_by(steps['size'])} from {fit} {_by(steps['resize_to'])}, {steps['interpolation']}"
            + (f"; --size test: {_by(steps['test_size'])}" if steps["test_size"] else "")
        ),
    )
    yield "mean, std", f"{_spaced(steps['mean'])}, {_spaced(steps['std'])}"
    for name, value in facts["metrics"].items():
        yield name, f"{value:g}"
    yield (
        "licence",
        (facts["license"] or "not stated")
        + (f" ({facts['terms']})" if facts.get("terms") not in ("", None, facts["license"]) else ""),
    )
    if facts["source"]:
        yield "source", facts["source"]
    if facts["aliases"]:
        yield "also called", ", ".join(facts["aliases"])
    if facts.get("pull"):
        yield "where", f"not on this machine: {facts['pull']}"
        return
    statistics = facts["statistics"]
    yield "file", f"{facts['path']} ({(facts['size'] or 0) / 1e6:.1f} MB)"
    for copy in facts["copies"]:
        if copy != facts["path"]:
            yield "copy", copy
    yield "layout", facts["layout"]
    if export := facts.get("export"):
        size = _by(export["size"]) if export["size"] else "any size"
        what = "photos of any one size" if export["photos"] else f"tensors of {size}"
        yield "takes", f"{what}, {export['batch'] or 'any number'} a call"
        yield "gives", export["output"] + (", features" if export["features"] else "")
        yield "made with", ", ".join(f"{name} {version}" for name, version in export["made_with"].items())
    if facts["file_sha256"]:
        yield "file sha256", facts["file_sha256"]
    yield "tensors' sha256", facts["sha256"]
    if facts["temperature"]:
        yield "temperature", f"{facts['temperature']:g}"
    if statistics is None:
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in statistics["dtypes"].items())
    yield "tensors", f"{statistics['tensors']}: {kinds}"
    scale = statistics["layer_scale"]
    yield "largest value", f"{statistics['largest']:.4g}" + (f"; mean layer scale {scale:.3g}" if scale else "")


def _dashed(values: list[int]) -> str:
    return "-".join(map(str, values))


def _by(values: list[int]) -> str:
    return "×".join(map(str, values))


def _spaced(values: list[float]) -> str:
    return " ".join(f"{v:g}" for v in values)


@contextmanager
def progress_bars() -> Iterator[Progress | None]:
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
