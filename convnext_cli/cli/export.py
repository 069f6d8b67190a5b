"""``convnext export``: a model as a file for another program, checked before it is called done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.base.files import check_utf8, user_path
from convnext_cli.cli import options, render, types
from convnext_cli.runtimes.registry import FORMATS
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.runtimes.exporting.check import Check
    from convnext_cli.runtimes.exporting.export import Exported


class _Extent(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A whole number of at least 1, or `any`: None."""

    name = "N|any"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "any" or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        if not str(value).isdecimal() or not 1 <= int(value) <= 4096:
            self.fail(f"{value!r} is neither `any` nor a whole number from 1 to 4096", param, ctx)
        return int(value)


@click.command(
    epilog="\b\nExamples:\n  convnext export -o model.onnx\n"
    "  convnext export -m convnext_tiny.fb_in1k --with-preprocessing --with-softmax -o tiny.onnx\n"
    "  convnext export --to aoti --dtype bfloat16 -o tiny.pt2\n"
    "  convnext export --dtype int8 --calibrate photos/ -o small.xml"
)
@options.model
@click.option(
    "-o",
    "--output",
    type=options.PathName(),
    metavar="FILE",
    help="The file to write; its suffix may say the format.  [default: NAME.onnx, or as --to says]",
)
@options.option(
    "--to",
    type=click.Choice(tuple(FORMATS)),
    aliases=("--format",),
    help="The format.  [default: by the suffix of FILE]",
)
@options.option(
    "--batch",
    type=_Extent(),
    default="any",
    show_default=True,
    aliases=("-b", "--batch-size"),
    help="Photos in each call.",
)
@options.option(
    "--size",
    type=_Extent(),
    metavar="PIXELS|any",
    aliases=options.SIZE_ALIASES,
    help="Edge of the input.  [default: the model's]",
)
@options.option(
    "--dtype",
    type=types.dtypes("float32", "float16", "bfloat16", "int8"),
    constants={"--half": "float16"},
    default="float32",
    show_default=True,
    help="Precision of the file; norms stay in float32.",
)
@click.option(
    "--calibrate",
    type=options.PathName(),
    metavar="FOLDER",
    help="Photos for int8: half find its ranges, half test it.",
)
@click.option(
    "--with-preprocessing", is_flag=True, help="Take photos of any size, as bytes: resize, crop and scale are inside."
)
@click.option("--with-softmax", is_flag=True, help="Give scores instead of logits.")
@click.option("--features", is_flag=True, help="Give the pooled features as a second output.")
@click.option("--opset", type=click.IntRange(17), help="Of ONNX.  [default: the newest that ONNX Runtime takes]")
@click.option("--simplify", is_flag=True, help="Have onnxslim look for what ONNX can do without.")
@click.option(
    "--check-on", type=options.PathName(), metavar="FOLDER", help="Check on these photos too, besides three samples."
)
@click.option("--no-check", is_flag=True, help="Leave the file unproven.")
@options.threads
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@options.quiet
def export(**given: Any) -> int:
    """Write a model as a file for another program.

    The file holds the model's labels and preprocessing, and is run in its own runtime against the network before it is
    called done; what differs too much is not left there. `convnext classify -m FILE` runs it.
    """
    render.set_quiet(given["quiet"])
    from convnext_cli.runtimes.libraries import libraries_said

    with libraries_said():
        done = _export(given)
    return _tell(done, as_json=given["as_json"])


def _export(given: dict[str, Any]) -> Exported:
    from convnext_cli import zoo

    options.not_offline(given)
    if given["no_check"] and given["threads"] and given["dtype"] != "int8":
        raise click.UsageError("--threads is for the check, which --no-check leaves out.")
    if given["output"]:
        check_output(given["output"])
    if given["pull"]:
        from convnext_cli.cli.models import pull_if_missing

        pull_if_missing(given["model"], offline=given["offline"])
    model = given["model"] or zoo.default_model()
    path = zoo.resolve(model)
    target = user_path(given["output"]) if given["output"] else _named(model, given["to"] or "onnx")
    check_utf8(target)
    from convnext_cli.base.threads import usable_threads
    from convnext_cli.runtimes.exporting import export as exporting
    from convnext_cli.runtimes.exporting.plan import Plan

    form = exporting.format_of(target, given["to"])
    if form.name != "onnx" and (given["opset"] or given["simplify"]):
        raise click.UsageError("--opset and --simplify are for --to onnx.")
    if given["no_check"] and given["check_on"]:
        raise click.UsageError("--check-on and --no-check exclude each other.")
    size = given["size"]
    plan = Plan(
        dtype=given["dtype"],
        batch=None if given["batch"] == "any" else given["batch"],
        **({"size": None} if size == "any" else {}),
        preprocessing=given["with_preprocessing"],
        scores=given["with_softmax"],
        features=given["features"],
        opset=given["opset"],
        simplify=given["simplify"],
        threads=given["threads"] or usable_threads(),
    )
    return exporting.export(
        path,
        form,
        plan,
        target,
        size=(size, size) if isinstance(size, int) else None,
        calibrate=given["calibrate"],
        check_on=given["check_on"],
        checked=not given["no_check"],
        overwrite=given["overwrite"],
        say=render.note,
    )


def _named(model: str, form: str) -> Path:
    """The file of an export that nobody named, in the current folder. Raises UnavailableError without onnx."""
    from importlib.util import find_spec

    from convnext_cli import zoo
    from convnext_cli.base.errors import UnavailableError

    entry = zoo.find(model)
    place = user_path(model).absolute()
    name = entry.name if entry else place.name if place.is_dir() else place.stem if place.is_file() else model
    target = Path(f"{name}{FORMATS[form].suffix}")
    if form == "onnx" and find_spec("onnx") is None:
        raise UnavailableError(
            "ONNX files need onnx, which is not installed",
            f"pip install onnx onnxruntime (the extra onnx); or without them: convnext export -o {name}.xml",
        )
    render.note(f"note: this writes {target}; -o names another file")
    return target


def _tell(done: Exported, *, as_json: bool) -> int:
    for note in done.notes:
        render.note(f"note: {note}")
    found = done.check
    if as_json:
        values = {"files": [str(file) for file in done.files], "card": json.loads(done.card.to_json())}
        click.echo(json.dumps(values | {"runtime": done.runtime, "check": found and found.to_dict()}))
    elif found is not None and (found.against or not render.err().quiet):
        _draw(done, found)
    if found is None:
        render.note(f"wrote {render.plain(str(done.files[0]))}: it was not checked")
        return 0
    if found.skipped:
        photos = (
            "1 photo could not be read and was"
            if found.skipped == 1
            else f"{found.skipped} photos could not be read and were"
        )
        render.note(f"note: {photos} left out")
    if found.against:
        render.error(f"{done.files[0].name} was not kept: {'; '.join(found.against)}", _advice(done))
        return 1
    others = f" and {', '.join(file.name for file in done.files[1:])}" if done.files[1:] else ""
    render.note(f"wrote {render.plain(str(done.files[0]) + others)}, checked in {done.runtime}")
    slower = [batch for batch, (network, file) in found.ms.items() if file > network]
    if done.card.export is not None and done.card.export.dtype == "int8" and slower:
        render.note("warning: int8 is slower here than the network in float32: --dtype float32 serves better")
    return 0


def _draw(done: Exported, found: Check) -> None:
    export = done.card.export
    assert export is not None
    from convnext_cli.runtimes.exporting.check import percent

    titles = ("check", "photos", "pixels", "largest difference", "same label")
    words = {"random": "random inputs", "photos": "photos"}
    rows: list[tuple[str, ...]] = []
    for trial in found.trials:
        pixels = f"{trial.size[0]}×{trial.size[1]}" if trial.size else "their own" if export.photos else ""
        same = f"{percent(found.agreement)} %" if trial.what == "photos" else ""
        # of the range of the outputs: 1e-6 is float32's own rounding
        rows.append((words[trial.what], str(trial.photos), pixels, f"{trial.difference:.1e}", same))
    _print(titles, rows, needless=(2, 4))
    share = f"{found.bytes[1] / found.bytes[0]:.2f} of it"
    rows = [("MB", *(f"{size / 1e6:.1f}" for size in found.bytes), share)]
    for batch, (network, file) in found.ms.items():
        what = f"ms a photo, {'one' if batch == 1 else batch} at a time"
        rows.append((what, f"{network:.1f}", f"{file:.1f}", f"{network / file:.2f} times as fast"))
    _print(("", "network", done.runtime, ""), rows, needless=(3,))


def _print(titles: tuple[str, ...], rows: list[tuple[str, ...]], needless: tuple[int, ...]) -> None:
    """A table of figures behind words. needless: columns that go, in this order, where the screen is too narrow."""
    out, places = render.out(), list(range(len(titles)))

    def width() -> int:
        return sum(max(len(row[place]) for row in (titles, *rows)) + 2 for place in places) - 2

    for place in needless:
        if width() > out.width:
            places.remove(place)
    table = render.table(*(titles[place] for place in places), right=tuple(range(1, len(places))))
    for row in rows:
        table.add_row(*(row[place] for place in places))
    # what still does not fit is folded, not squeezed away
    narrow = max(len(word) for row in (titles, *rows) for word in row[0].split() or [""])
    table.columns[0].min_width = min(narrow, out.width)
    out.print(table)


def _advice(done: Exported) -> str:
    dtype = done.card.export.dtype if done.card.export is not None else "float32"
    if dtype == "float32":
        return "this is a defect of this program or of the runtime: report it with the table above"
    if dtype == "int8":
        return "calibrate with more photos of the kind that will be labelled, or take --dtype float32"
    return f"take --dtype {'bfloat16 or ' if dtype == 'float16' else ''}float32"
