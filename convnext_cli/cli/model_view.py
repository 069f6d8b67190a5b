"""What ``convnext models`` tells of a model: as JSON values, and drawn for a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_cli.cli import render

if TYPE_CHECKING:
    from rich.table import Table

    from convnext_cli.checkpoints import Checkpoint
    from convnext_cli.model.card import Card
    from convnext_cli.zoo import Entry
    from convnext_cli.zoo.fetch import Progress


def row(name: str, known: Card | Entry | None, where: str, path: Path | None, chosen: bool) -> dict[str, Any]:
    """One JSON object of ``models list``; ``known`` is None when nothing is said of a bundled file."""
    found: dict[str, Any] = {"name": name, "where": where, "path": None if path is None else str(path)}
    found |= {"default": chosen, "aliases": list(getattr(known, "aliases", ()))}
    found |= {"size": None if path is None else size_of(path), "size_is_estimate": path is None}
    if known is None:
        unknown = ("architecture", "params", "gmacs", "input", "labels", "classes", "task", "top1", "license", "terms")
        return found | dict.fromkeys(unknown) | {"metrics": {}, "source": ""}
    labels = known.labels if known.labels is None or isinstance(known.labels, str) else known.labels.name
    if path is None and where == "pull":
        from convnext_cli.zoo.recommendation import download_size

        found["size"] = download_size(known.config)
    return found | {
        "architecture": known.architecture,
        "params": known.config.num_parameters,
        "gmacs": round(known.config.gmacs(*known.recipe.size), 3),
        "input": list(known.recipe.size),
        "labels": labels,
        "classes": known.config.num_labels,
        "task": known.task,
        "top1": getattr(known, "top1", None),
        "license": known.license,
        "terms": getattr(known, "terms", known.license if "non-commercial" in known.license else ""),
        "metrics": known.metrics,
        "source": known.source,
    }


def size_of(path: Path) -> int | None:
    """The bytes of a model on this machine, with all its files; None where they are gone."""
    from convnext_cli import zoo

    files = zoo.local_files.shards(path) if path.name.endswith(".index.json") else _parts(path)
    try:
        return sum(file.stat().st_size for file in files)
    except OSError:
        return None


def inspect(path: Path) -> dict[str, Any]:
    """The JSON object of ``models info`` for weights on this machine. Raises ModelError when they cannot be used."""
    from convnext_cli import checkpoints, zoo
    from convnext_cli.runtimes import registry
    from convnext_cli.zoo.record import sha256

    if registry.is_program(path):
        return _inspect_program(path)
    checkpoint = checkpoints.load(path, dtype="stored", verify=True)
    card, file = checkpoint.card, checkpoint.path
    told = row(card.name or file.stem, card, "bundled" if file == zoo.local_files.bundled() else "local", file, False)
    if entry := zoo.entry_for_file(file):
        told |= {"terms": entry.terms, "license": card.license or entry.license, "source": card.source or entry.source}
    return told | {
        "layout": checkpoint.layout,
        "file_sha256": sha256(file),
        "size": file.stat().st_size,
        "sha256": card.sha256,
        "temperature": card.temperature,
        "statistics": _statistics(checkpoint),
        "warnings": list(checkpoint.notes),
        "recipe": card.recipe.to_dict(),
        "config": card.config.to_dict(),
    }


def _inspect_program(path: Path) -> dict[str, Any]:
    """The same for a file of ``convnext export``, of which nothing is run."""
    from dataclasses import asdict

    from convnext_cli.base.errors import ModelError
    from convnext_cli.runtimes import inspection
    from convnext_cli.zoo.record import sha256

    card, notes = inspection.inspect(path)
    if card is None or card.export is None:
        raise ModelError(
            f"{path.name} was made by another program, and holds no card that says what it is",
            f"convnext classify -m {path} runs it",
        )
    return row(card.name or path.stem, card, "local", path, False) | {
        "layout": f"{card.export.format}, {card.export.dtype}",
        "file_sha256": sha256(path) if path.is_file() else None,
        "size": sum(file.stat().st_size for file in _parts(path)),
        "sha256": card.sha256,
        "temperature": card.temperature,
        "statistics": None,
        "warnings": notes,
        "recipe": card.recipe.to_dict(),
        "config": card.config.to_dict(),
        "export": asdict(card.export),
    }


def _parts(path: Path) -> list[Path]:
    """The files of an export: of a package all in it, of OpenVINO and of large ONNX files the weights beside it."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    weights = path.with_suffix(".bin") if path.suffix.lower() == ".xml" else path.with_name(f"{path.name}.data")
    return [file for file in (path, weights) if file.is_file()]


def _statistics(checkpoint: Checkpoint) -> dict[str, Any]:
    """Figures that tell sane weights from ruined ones."""
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
# What goes first where the screen is narrow; names are never cut or folded.
_DISPENSABLE = ("params M", "GMACs", "licence", "labels", "input")


def draw_list(rows: list[dict[str, Any]]) -> None:
    from rich.measure import Measurement

    console = render.out()
    cells = [_cells(r) for r in rows]
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
    marks = "* answers when no -m is given" + " · + recommended" * any(r["recommended"] for r in rows)
    render.note(f"{count} · top-1 as published on ImageNet-1k, z: zero-shot · {marks}")
    if any(row["size"] and row["size_is_estimate"] for row in rows):
        render.note("≈: what a download takes, computed from the parameters")
    if left_out:
        render.note(f"for a wider screen, or --json: {', '.join(left_out)}")
    for r in rows:
        if r["recommended"]:
            render.note(_recommendation(r))
    render.note("pull one: convnext models pull NAME · licences in docs/models.md")


def _draw_stacked(titles: list[str], rows: list[dict[str, Any]]) -> None:
    """Each model on two lines, for screens that have no room for a name with anything beside it."""
    from rich.text import Text

    for cells in rows:
        shown = [(title, cells[title]) for title in titles if cells.get(title)]
        parts = [Text.assemble(text, f" {title}" if title in _FIGURES else "") for title, text in shown]
        render.out().print(cells["name"], soft_wrap=True)
        render.out().print(Text("  ") + Text(" · ").join(parts), soft_wrap=True)


def _recommendation(r: dict[str, Any]) -> str:
    """The line that names a model for those who have no reason to take another."""
    name = r["name"]
    command = f"convnext models pull {name}" if r["path"] is None else f"convnext classify -m {name} PHOTO"
    return f"+ {r['recommended']}: {command} ({r['top1']:.2f} %, {_megabytes(r)} MB, {r['license']})"


def _megabytes(r: dict[str, Any]) -> str:
    if not r["size"]:
        return ""
    digits = 0 if r["size"] >= 100e6 else 1
    return f"{'≈' * r['size_is_estimate']}{r['size'] / 1e6:.{digits}f}"


def _cells(r: dict[str, Any]) -> dict[str, Any]:
    """What a model's row shows, by column."""
    from rich.text import Text

    colours = {"bundled": "green", "local": "green", "pull": "dim"}
    cells: dict[str, Any] = {
        "name": Text(render.plain(r["name"]), "bold" if r["default"] or r["recommended"] else ""),
        "licence": Text(render.plain(_short(r["license"])), "yellow" if r["terms"] else ""),
        "where": Text(r["where"] + " *" * r["default"] + " +" * bool(r["recommended"]), colours.get(r["where"], "")),
    }
    cells["MB"] = _megabytes(r)
    if r["params"] is None:
        return cells
    labels = r["labels"] or (f"{r['classes']} numbers" if r["task"] == "embedding" else r["task"])
    zero_shot = "z" if "imagenet-1k zero-shot top-1" in r["metrics"] else ""
    return cells | {
        "params M": f"{r['params'] / 1e6:.2f}",
        "GMACs": f"{r['gmacs']:.2f}",
        "input": str(r["input"][0]),
        "labels": Text(render.plain(labels)),
        "top-1": f"{r['top1']:.2f}{zero_shot}" if r["top1"] is not None else "",
    }


def _table(titles: list[str], rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title in _FIGURES else "left", no_wrap=True)
    for cells in rows:
        table.add_row(*(cells.get(title, "") for title in titles))
    return table


def _short(licence: str | None) -> str:
    """A licence's identifier; a sentence that says non-commercial becomes that word."""
    licence = licence or "?"
    return "non-commercial" if " " in licence and "non-commercial" in licence else licence


def draw_info(told: dict[str, Any]) -> None:
    from rich.text import Text

    lines = [(render.plain(title), render.plain(text)) for title, text in _lines(told)]
    width = max(len(title) for title, _ in lines)
    for title, text in lines:
        line = Text.assemble((f"{title:{width}}  ", "dim"), (text, "bold" if title == "name" else ""))
        render.out().print(line, soft_wrap=True)
    for warning in told.get("warnings", ()):
        render.note(f"note: {warning}")


def _lines(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    recipe, config = told["recipe"], told["config"]
    yield "name", told["name"]
    yield (
        "architecture",
        (
            f"{told['architecture'] or 'not a named variant'}: depths {_dashed(config['depths'])}, "
            f"widths {_dashed(config['hidden_sizes'])}, patch {config['patch_size']}"
        ),
    )
    yield "size", f"{told['params'] / 1e6:.2f} M parameters, {told['gmacs']:.2f} GMACs at {recipe['size'][0]}"
    heads = {"classification": "classes", "embedding": "numbers (an embedding)"}
    yield (
        "head",
        (
            f"{told['classes']} {heads[told['task']]}" + (f", {told['labels']}" if told["labels"] else "")
            if told["task"] in heads
            else "none: feature maps"
        ),
    )
    fit = recipe["resize"] if recipe["resize"] != "squash" else "squash (aspect ratio lost)"
    yield (
        "input",
        (
            f"{_by(recipe['size'])} from {fit} {_by(recipe['resize_to'])}, {recipe['interpolation']}"
            + (f"; --size test: {_by(recipe['test_size'])}" if recipe["test_size"] else "")
        ),
    )
    yield "mean, std", f"{_spaced(recipe['mean'])}, {_spaced(recipe['std'])}"
    for name, value in told["metrics"].items():
        yield name, f"{value:g}"
    yield (
        "licence",
        (told["license"] or "not stated")
        + (f" ({told['terms']})" if told.get("terms") not in ("", None, told["license"]) else ""),
    )
    if told["source"]:
        yield "source", told["source"]
    if told["aliases"]:
        yield "also called", ", ".join(told["aliases"])
    if told.get("pull"):
        yield "where", f"not on this machine: {told['pull']}"
        return
    statistics = told["statistics"]
    yield "file", f"{told['path']} ({told['size'] / 1e6:.1f} MB)"
    for copy in told["copies"]:
        if copy != told["path"]:
            yield "copy", copy
    yield "layout", told["layout"]
    if export := told.get("export"):
        size = _by(export["size"]) if export["size"] else "any size"
        what = "photos of any one size" if export["photos"] else f"tensors of {size}"
        yield "takes", f"{what}, {export['batch'] or 'any number'} a call"
        yield "gives", export["output"] + (", features" if export["features"] else "")
        yield "made with", ", ".join(f"{name} {version}" for name, version in export["made_with"].items())
    if told["file_sha256"]:
        yield "file sha256", told["file_sha256"]
    yield "tensors' sha256", told["sha256"]
    if told["temperature"]:
        yield "temperature", f"{told['temperature']:g}"
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
    """A bar on a terminal; elsewhere nothing, since the path that is printed says that it is done."""
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=render.err(), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def progress(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(render.clean(name), total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield progress
