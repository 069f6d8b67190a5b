"""``convnext bench``: parse, have it measured, render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from convnext_cli.cli import options, render, types
from convnext_cli.runtimes.registry import DTYPES, ENGINES

if TYPE_CHECKING:
    from convnext_cli.benchmarking.setting import Layout

MAX_SIZE = 4096  # pixels
MAX_BATCH = 2**31 - 1


class Values(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """Several values with commas between them, each of one kind."""

    def __init__(self, kind: click.ParamType, name: str) -> None:  # type: ignore[type-arg]
        self._kind, self.name = kind, name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value
        return tuple(dict.fromkeys(self._kind.convert(part.strip(), param, ctx) for part in value.split(",")))


class BatchSize(click.IntRange):
    """A number of photos, or ``auto``."""

    def convert(
        self, value: types.ClickValue, param: click.Parameter | None, ctx: click.Context | None
    ) -> types.ClickValue:
        return value if value == "auto" else super().convert(value, param, ctx)


class _Ratio(types.Share):
    """A ratio of speeds, which may be above 1."""

    def __init__(self) -> None:
        super().__init__(high=None)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        ratio = super().convert(value, param, ctx)
        if not 0 <= ratio < 10:
            self.fail(f"{value} is not a ratio of speeds: write {ratio / 100:g} or {ratio:g}%", param, ctx)
        return ratio


def _choice(*values: str) -> Values:
    return Values(click.Choice(values), "|".join(values))


@click.command(
    epilog="\b\nExamples:\n  convnext bench\n"
    "  convnext bench -m tiny,base -e openvino,torch -b 1,8,32 --plot speed.png\n"
    "  convnext bench -m convnext_tiny --random --against timm,torchvision\n"
    "  convnext bench --json > before.json\n"
    "  convnext bench --compare before.json --fail-below 0.95\n\n"
    "Separate several values with commas; every combination is measured."
)
@click.option(
    "-m",
    "--model",
    "models",
    type=options.ModelName(),
    metavar="NAME,…",
    help="Models: names, files or folders.  [default: the bundled model]",
)
@click.option("--random", "at_random", is_flag=True, help="Use random weights; -m names architectures.")
@click.option(
    "-e",
    "--engine",
    "engines",
    type=_choice(*ENGINES),
    default="auto",
    metavar="ENGINE,…",
    help="Engines: auto, openvino, onnxruntime or torch.  [default: auto]",
)
@click.option(
    "-d",
    "--device",
    default="auto",
    callback=types.device,
    metavar="DEVICE,…",
    help="Devices: auto, cpu, cuda, cuda:N, mps or xpu.  [default: auto]",
)
@click.option(
    "--dtype",
    "dtypes",
    type=Values(types.dtypes(*DTYPES), "dtype"),
    metavar="DTYPE,…",
    help="Precisions: float32, bfloat16, float16 or int8.  [default: float32]",
)
@click.option(
    "--layout",
    "layouts",
    type=_choice("channels_last", "contiguous"),
    metavar="LAYOUT,…",
    help="Memory layout of tensors in torch: channels_last or contiguous.",
)
@click.option(
    "-b",
    "--batch-size",
    "batches",
    type=Values(BatchSize(1, MAX_BATCH), "photos"),
    metavar="PHOTOS,…|auto",
    help="Batch sizes; `auto` finds the fastest, and the largest that fits.  [default: 1,8 on a CPU, 1,64 on a GPU]",
)
@click.option(
    "-t",
    "--threads",
    type=Values(click.IntRange(1, options.MAX_THREADS), "threads"),
    metavar="THREADS,…",
    help="Numbers of threads.  [default: all that this process may use]",
)
@click.option(
    "--size",
    "sizes",
    type=Values(click.IntRange(1, MAX_SIZE), "pixels"),
    metavar="PIXELS,…",
    help="Input sizes.  [default: the model's]",
)
@click.option(
    "--compile",
    "compiled",
    type=_choice("no", "yes"),
    is_flag=False,
    flag_value="yes",
    metavar="[no|yes|no,yes]",
    help="Compile the network with torch.",
)
@click.option(
    "--data",
    type=options.PathName(),
    metavar="FOLDER",
    help="Also measure the pipeline from file to label, and its stages.",
)
@click.option("--train", is_flag=True, help="Measure a training step: forward, backward, AdamW.")
@click.option(
    "--against",
    metavar="LIBRARY,…",
    help="Also run timm, torchvision, transformers or onnxruntime; +compile and +channels_last can follow a name.",
)
@click.option(
    "--compare",
    type=options.PathName(),
    metavar="OLD.json",
    help="Print the ratios to the speeds of an earlier --json.",
)
@click.option(
    "--fail-below", type=_Ratio(), metavar="RATIO", help="Exit with status 1 if a ratio is lower, such as 0.95 or 95%."
)
@click.option("--plot", type=options.PathName(), metavar="FILE", help="Plot latency against throughput, as png or svg.")
@click.option(
    "--seconds", type=click.FloatRange(0, 600), default=5, show_default=True, help="Time to measure each setting."
)
@click.option("--no-checks", is_flag=True, help="Skip the tests with zeros, a repeated input and denormal numbers.")
@click.option("--json", "as_json", is_flag=True, help="Print all samples and the environment as one JSON document.")
@click.option(
    "-o",
    "--output",
    type=options.PathName(),
    metavar="FILE",
    help="Write the JSON to a file, and still print the table.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@options.verbosity("Print all measurements of each row")
def bench(
    *,
    models: str | None,
    at_random: bool,
    device: str,
    dtypes: tuple[str, ...] | None,
    layouts: tuple[Layout, ...] | None,
    compiled: tuple[str, ...] | None,
    batches: tuple[int | Literal["auto"], ...] | None,
    threads: tuple[int, ...] | None,
    sizes: tuple[int, ...] | None,
    against: str | None,
    no_checks: bool,
    as_json: bool,
    quiet: bool,
    verbose: int,
    **fields: types.ClickValue,
) -> int:
    """Measure how fast models run here.

    Each setting runs in its own process, is warmed up until its times are stable, and is compared with the peak
    performance of the processor. docs/bench.md explains every figure.
    """
    render.set_quiet(quiet)
    batches = batches or ()
    if "auto" in batches and len(batches) > 1:
        raise click.UsageError("-b auto cannot be combined with other batch sizes, --against or --data.")
    from convnext_cli.base.libraries import libraries_said

    with libraries_said():
        from convnext_cli.benchmarking import bench as verb

        request = verb.BenchRequest(
            models=_names(models),
            random=at_random,
            devices=tuple(device.split(",")),
            dtypes=dtypes or (),
            layouts=layouts or (),
            threads=threads or (),
            sizes=sizes or (),
            compiled=tuple(word == "yes" for word in compiled or ("no",)),
            batch_sizes="auto" if "auto" in batches else tuple(size for size in batches if isinstance(size, int)),
            against=tuple(dict.fromkeys(name.strip() for name in against.split(","))) if against else (),
            checks=not no_checks,
            **fields,
        )
    unwritten = None
    try:
        result = verb.bench(request, render.StageLines())
    except verb.UnwrittenError as error:  # the figures are shown all the same
        result, unwritten = error.result, error
    if as_json:
        click.echo(result.to_json(), nl=False)
    else:
        from convnext_cli.cli import bench_view

        bench_view.draw(result.document, result.ratios, result.compared, verbose=verbose)
    if unwritten is not None:
        raise unwritten
    if result.interrupted:
        raise KeyboardInterrupt
    if result.unmatched:
        rows = len(result.rows)
        render.note(f"note: {request.compare} has no row of the same settings for {result.unmatched} of {rows}")
    if result.below:
        render.note(f"{result.below} of {len(result.compared)} below {request.fail_below:g}")
    return 0 if result.passed else 1


def _names(text: str | None) -> tuple[str, ...]:
    """The models of ``-m``: a path that exists may hold commas."""
    if text is None:
        return ()
    return (text,) if Path(text).exists() else tuple(name.strip() for name in text.split(","))
