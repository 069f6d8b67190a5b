"""``convnext convert``: weights in another library's layout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.base.files import user_path
from convnext_cli.cli import options, render
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.checkpoints.convert import Written

# as checkpoints.placing.FORMS has them; a test holds them together
LAYOUTS = ("canonical", "official", "timm", "torchvision", "hf", "mmpretrain")


@click.command(
    epilog="\b\nExamples:\n  convnext convert checkpoint.pth tiny.safetensors --to canonical\n"
    "  convnext convert convnext_tiny.in12k_ft_in1k tiny-hf --to hf --dtype float16\n"
    "  convnext convert tiny-hf tiny-timm --to timm --layer-norm-eps 1e-6"
)
@click.argument("source", metavar="IN", type=options.ModelName())
@click.argument("out", metavar="OUT", type=click.Path())
@click.option("--to", required=True, type=click.Choice(LAYOUTS), help="Whose layout.")
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
    help="Change the epsilon of the last norm: transformers has 1e-12 there, others 1e-6.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@options.quiet
def convert(**given: Any) -> int:
    """Rewrite weights in another library's layout.

    IN is a name (see `convnext models list`), a file or a folder of any layout. OUT is what the layout wants: a folder
    for hf; a folder or a file for timm; else a file, .pth or .safetensors. What the layout cannot hold is an error, and
    then nothing is written. Code in a pickle is never run.
    """
    render.set_quiet(given["quiet"])
    check_output(given["out"])
    from convnext_cli import zoo

    source = zoo.resolve(given["source"])
    from convnext_cli.runtimes.libraries import libraries_said

    with libraries_said():
        from convnext_cli.checkpoints import convert as writing

        done = writing.convert(
            source,
            user_path(given["out"]),
            given["to"],
            dtype=given["dtype"],
            layer_norm_eps=given["layer_norm_eps"],
            overwrite=given["overwrite"],
        )
    for note in done.notes:
        render.note(f"note: {note}")
    if given["as_json"]:
        click.echo(json.dumps(_told(done)))
    size = f"{done.bytes / 1e6:.1f} MB in {done.tensors} tensors"
    render.note(f"wrote {render.plain(str(done.path))}: {done.origin} to {done.layout}, {done.dtype}, {size}")
    return 0


def _told(done: Written) -> dict[str, Any]:
    return {
        "path": str(done.path),
        "files": [str(file) for file in done.files],
        "from": done.origin,
        "to": done.layout,
        "dtype": done.dtype,
        "bytes": done.bytes,
        "tensors": done.tensors,
        "sha256": done.card.sha256,
        "notes": done.notes,
    }
