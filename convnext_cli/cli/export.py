"""``convnext export``: a model as a file for another program, checked before it is called done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from convnext_cli.cli import options, render, types
from convnext_cli.cli.types import ClickValue
from convnext_cli.runtimes.registry import FORMATS
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.runtimes.exporting.check import Check
    from convnext_cli.runtimes.exporting.export import ExportResult


class _Extent(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A whole number of at least 1, or `any`."""

    name = "N|any"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        if text == "any":
            return text
        if not text.isdecimal() or not 1 <= int(text) <= 4096:
            self.fail(f"{text!r} is neither `any` nor a whole number from 1 to 4096", param, ctx)
        return int(text)


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
    help="The file to write; its suffix can select the format.  [default: NAME and the suffix of --to, or .onnx]",
)
@options.option(
    "--to",
    "format",
    type=click.Choice(tuple(FORMATS)),
    aliases=("--format",),
    help="The format.  [default: from the suffix of FILE]",
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
    help="Input size.  [default: the model's]",
)
@options.option(
    "--dtype",
    type=types.dtypes("float32", "float16", "bfloat16", "int8"),
    constants={"--half": "float16"},
    default="float32",
    show_default=True,
    help="Precision of the weights; norms are always computed in float32.",
)
@click.option(
    "--calibrate",
    type=options.PathName(),
    metavar="FOLDER",
    help="Photos for int8: half to find value ranges, half for testing.",
)
@click.option(
    "--with-preprocessing",
    "preprocessing",
    is_flag=True,
    help="Include resize, crop and normalisation: the input is photos of any size, as bytes.",
)
@click.option("--with-softmax", "scores", is_flag=True, help="Output scores instead of logits.")
@click.option("--features", is_flag=True, help="Add the pooled features as a second output.")
@click.option("--opset", type=click.IntRange(17), help="ONNX opset.  [default: the newest that ONNX Runtime supports]")
@click.option("--simplify", is_flag=True, help="Simplify the ONNX graph with onnxslim.")
@click.option(
    "--check-on",
    type=options.PathName(),
    metavar="FOLDER",
    help="Check with these photos, in addition to three samples.",
)
@click.option("--no-check", is_flag=True, help="Skip the check.")
@options.threads
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@options.quiet
def export(
    *,
    model: str | None,
    pull: bool,
    offline: bool,
    no_check: bool,
    as_json: bool,
    quiet: bool,
    **fields: ClickValue,
) -> int:
    """Write a model as a file for another program.

    The file contains the model's labels and preprocessing. It is run in its own runtime and compared with the network;
    if the answers differ too much, it is deleted. `convnext classify -m FILE` runs it.
    """
    render.set_quiet(quiet)
    options.check_connection(pull=pull, offline=offline)
    from convnext_cli.base.libraries import libraries_said

    with libraries_said():
        from convnext_cli.runtimes.exporting import export as verb

        request = verb.ExportRequest(model=model, check=not no_check, **fields)
    if request.output is not None:
        check_output(str(request.output))
    if pull:
        from convnext_cli.cli.models import pull_if_missing

        pull_if_missing(model, offline=offline)
    return _show(verb.export(request, render.StageLines()), as_json=as_json)


def _show(result: ExportResult, *, as_json: bool) -> int:
    """Print the outcome; the exit status."""
    for note in result.notes:
        render.note(f"note: {note}")
    check = result.check
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    elif check is not None and (check.against or not render.err().quiet):
        _draw(result, check)
    if check is None:
        render.note(f"wrote {render.plain(str(result.files[0]))}: it was not checked")
        return 0
    if check.skipped:
        photos = (
            "1 photo could not be read and was"
            if check.skipped == 1
            else f"{check.skipped} photos could not be read and were"
        )
        render.note(f"note: {photos} left out")
    if not result.passed:
        render.error(f"{result.files[0].name} was not kept: {'; '.join(check.against)}", _advice(result))
        return 1
    others = f" and {', '.join(file.name for file in result.files[1:])}" if result.files[1:] else ""
    render.note(f"wrote {render.plain(str(result.files[0]) + others)}, checked in {result.runtime}")
    slower = [batch for batch, (network, file) in check.ms.items() if file > network]
    if result.card.export is not None and result.card.export.dtype == "int8" and slower:
        render.note("warning: int8 is slower here than the network in float32: use --dtype float32 instead")
    return 0


def _draw(result: ExportResult, check: Check) -> None:
    export = result.card.export
    assert export is not None
    from convnext_cli.runtimes.exporting.check import percent

    titles = ("check", "photos", "pixels", "largest difference", "same label")
    words = {"random": "random inputs", "photos": "photos"}
    rows: list[tuple[str, ...]] = []
    for trial in check.trials:
        pixels = f"{trial.size[0]}×{trial.size[1]}" if trial.size else "their own" if export.photos else ""
        same = f"{percent(check.agreement)} %" if trial.what == "photos" else ""
        # of the range of the outputs: 1e-6 is float32's own rounding
        rows.append((words[trial.what], str(trial.photos), pixels, f"{trial.difference:.1e}", same))
    _print(titles, rows, needless=(2, 4))
    share = f"{check.bytes[1] / check.bytes[0]:.2f} of it"
    rows = [("MB", *(f"{size / 1e6:.1f}" for size in check.bytes), share)]
    for batch, (network, file) in check.ms.items():
        what = f"ms a photo, {'one' if batch == 1 else batch} at a time"
        rows.append((what, f"{network:.1f}", f"{file:.1f}", f"{network / file:.2f} times as fast"))
    _print(("", "network", result.runtime, ""), rows, needless=(3,))


def _print(titles: tuple[str, ...], rows: list[tuple[str, ...]], needless: tuple[int, ...]) -> None:
    """A table of figures behind words. needless: columns that go, in this order, where the screen is too narrow."""
    out, places = render.summary(), list(range(len(titles)))

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


def _advice(result: ExportResult) -> str:
    dtype = result.card.export.dtype if result.card.export is not None else "float32"
    if dtype == "float32":
        return "this is a defect of this program or of the runtime: report it with the table above"
    if dtype == "int8":
        return "calibrate with more photos of the kind that will be labelled, or use --dtype float32"
    return f"use --dtype {'bfloat16 or ' if dtype == 'float16' else ''}float32"
