"""``convnext convert``: weights in another library's layout."""

from __future__ import annotations

import json

import click

from convnext_cli.checkpoints.layouts.registry import TARGETS
from convnext_cli.cli import options, render
from convnext_cli.cli.types import ClickValue


@click.command(
    epilog="\b\nExamples:\n  convnext convert checkpoint.pth tiny.safetensors --to canonical\n"
    "  convnext convert convnext_tiny.in12k_ft_in1k tiny-hf --to hf --dtype float16\n"
    "  convnext convert tiny-hf tiny-timm --to timm --layer-norm-eps 1e-6"
)
@click.argument("source", metavar="IN", type=options.ModelName())
@click.argument("output", metavar="OUT", type=click.Path())
@click.option("--to", "layout", required=True, type=click.Choice(tuple(TARGETS)), help="The layout to write.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Precision of the tensors.  [default: float32 for hf, otherwise that of IN]",
)
@click.option(
    "--layer-norm-eps",
    type=click.FloatRange(0, 1, min_open=True),
    callback=options.finite,
    metavar="EPSILON",
    help="Change the epsilon of the last norm: 1e-12 in transformers, 1e-6 elsewhere.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@options.quiet
def convert(*, as_json: bool, quiet: bool, **fields: ClickValue) -> int:
    """Rewrite weights in another library's layout.

    IN is a name (see `convnext models list`), or a file or folder in any layout. OUT is a folder for hf, a folder or a
    file for timm, and otherwise a .pth or .safetensors file. If the layout cannot hold the network, nothing is written
    and the exit status is 3. Code in pickles is never run.
    """
    render.set_quiet(quiet)
    from convnext_cli.checkpoints import convert as verb

    result = verb.convert(verb.ConvertRequest(**fields))
    for note in result.notes:
        render.note(f"note: {note}")
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    size = f"{result.bytes / 1e6:.1f} MB in {result.tensors} tensors"
    render.note(f"wrote {render.plain(str(result.path))}: {result.origin} to {result.layout}, {result.dtype}, {size}")
    return 0
