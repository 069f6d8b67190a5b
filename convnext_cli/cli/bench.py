"""``convnext bench``: parse, have it measured, render."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import options, render, row_stream, types
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.benchmarking.compare import Ratio
    from convnext_cli.benchmarking.runs import Bench
    from convnext_cli.benchmarking.setting import Setting

MAX_SIZE = 4096  # pixels
MAX_BATCH = 2**31 - 1
_RUNS = 4  # over a folder


class Values(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """Several values with commas between them, each of one kind."""

    def __init__(self, kind: click.ParamType, name: str) -> None:  # type: ignore[type-arg]
        self._kind, self.name = kind, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(dict.fromkeys(self._kind.convert(part.strip(), param, ctx) for part in value.split(",")))


class BatchSize(click.IntRange):
    """A number of photos, or ``auto``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


class _Ratio(types.Share):
    """A ratio of speeds, which may be above 1."""

    def __init__(self) -> None:
        super().__init__(high=None)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
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
    "Values with commas between them are tried in every combination."
)
@click.option(
    "-m",
    "--model",
    "models",
    type=options.ModelName(),
    metavar="NAME,…",
    help="Names, files or folders.  [default: the bundled model]",
)
@click.option("--random", "at_random", is_flag=True, help="-m names architectures, whose weights are drawn at random.")
@click.option(
    "-e",
    "--engine",
    type=_choice("auto", "openvino", "onnxruntime", "torch"),
    default="auto",
    metavar="ENGINE,…",
    help="auto, openvino, onnxruntime or torch.  [default: auto]",
)
@click.option(
    "-d",
    "--device",
    default="auto",
    callback=types.device,
    metavar="DEVICE,…",
    help="auto, cpu, cuda, cuda:N, mps or xpu.  [default: auto]",
)
@click.option(
    "--dtype",
    type=Values(types.dtypes("float32", "bfloat16", "float16", "int8"), "dtype"),
    default="float32",
    metavar="DTYPE,…",
    help="float32, bfloat16, float16 or int8.  [default: float32]",
)
@click.option(
    "--layout",
    type=_choice("channels_last", "contiguous"),
    metavar="LAYOUT,…",
    help="Of the tensors in torch: channels_last, contiguous.",
)
@click.option(
    "-b",
    "--batch-size",
    "batches",
    type=Values(BatchSize(1, MAX_BATCH), "photos"),
    metavar="PHOTOS,…|auto",
    help="`auto` finds the best, and the largest that fits.  [default: 1,8 on a CPU, 1,64 on a GPU]",
)
@click.option(
    "-t",
    "--threads",
    type=Values(click.IntRange(1, options.MAX_THREADS), "threads"),
    metavar="THREADS,…",
    help="[default: what this process may use]",
)
@click.option(
    "--size",
    type=Values(click.IntRange(1, MAX_SIZE), "pixels"),
    metavar="PIXELS,…",
    help="Edge of the input.  [default: the model's]",
)
@click.option(
    "--compile",
    "compiled",
    type=_choice("no", "yes"),
    is_flag=False,
    flag_value="yes",
    metavar="[no|yes|no,yes]",
    help="Have torch compile it.",
)
@click.option(
    "--data", type=options.PathName(), metavar="FOLDER", help="The whole way from file to label too, and its stages."
)
@click.option("--train", is_flag=True, help="A training step: forward, backward, AdamW.")
@click.option(
    "--against",
    metavar="LIBRARY,…",
    help="timm, torchvision, transformers, onnxruntime, taking turns; +compile and +channels_last may follow a name.",
)
@click.option("--compare", type=options.PathName(), metavar="OLD.json", help="Ratios to an earlier --json.")
@click.option("--fail-below", type=_Ratio(), metavar="RATIO", help="Exit 1 for a lower ratio, such as 0.95 or 95%.")
@click.option("--plot", type=options.PathName(), metavar="FILE", help="Draw latency against throughput, as png or svg.")
@click.option(
    "--seconds", type=click.FloatRange(0, 600), default=5, show_default=True, help="Of samples for each setting."
)
@click.option("--no-checks", is_flag=True, help="Leave out the look at zeros, one input and denormal numbers.")
@click.option("--json", "as_json", is_flag=True, help="All samples and the environment, on standard output.")
@click.option(
    "-o", "--output", type=options.PathName(), metavar="FILE", help="Write the JSON to a file, and print the table."
)
@click.option("--overwrite", is_flag=True, help="Replace the output when it is there.")
@options.verbosity("All that was measured of each row")
def bench(**given: Any) -> int:
    """Measure how fast models run here.

    Each setting runs in a process of its own, is warmed up until its times are flat, and is held against what the
    processor reaches at best. docs/bench.md tells what every figure means.
    """
    render.set_quiet(given["quiet"])
    _check(given)
    from convnext_cli.base import environment
    from convnext_cli.benchmarking import compare, plot, sweep
    from convnext_cli.benchmarking.runs import Bench
    from convnext_cli.cli import bench_view

    old = compare.read(Path(given["compare"])) if given["compare"] else None
    if given["plot"]:
        plot.check(Path(given["plot"]))
    told, measured, stopped = environment.describe(), _Measured(), False
    with Bench(given["seconds"], not given["no_checks"], say=render.note) as run:
        bases = _bases(run, given)
        wanted = [
            s
            for device in dict.fromkeys(given["device"].split(","))
            for s in sweep.settings(bases, _values(given, device))
        ]
        if old and given["batches"] != ("auto",) and not any(compare.may_match(s, old["rows"]) for s in wanted):
            raise click.UsageError(
                f"{given['compare']} has no row of the same settings; give the same options as then."
            )
        try:
            _measure(run, wanted, given, measured)
            run.raise_ceilings(measured.rows)
        except KeyboardInterrupt:
            stopped = True
    rows = measured.rows
    if stopped and not rows:
        raise KeyboardInterrupt
    if run.refused and all(row["error"] for row in rows):
        raise run.refused[0]
    gate = compare.with_old(rows, old["rows"]) if old else []
    found: dict[str, Any] = {
        "environment": told,
        "rows": rows,
        "ceilings": list(run.ceilings.values()),
        **measured.more,
        "ratios": [ratio.to_dict() for ratio in measured.ratios],
        "compared": [ratio.to_dict() for ratio in gate],
    }
    if sum(setting.peer is None for setting, _ in measured.pairs) > 1:
        found["winners"] = [{"what": what, "command": line} for what, line in sweep.winners(measured.pairs)]
    if given["plot"]:
        plot.draw(rows, Path(given["plot"]), told["processor"])
        render.note(f"drawn: {given['plot']}")
    text = json.dumps(found, indent=1, allow_nan=False).encode() + b"\n"
    if given["as_json"]:
        click.echo(text.decode(), nl=False)
    else:
        bench_view.draw(found, measured.ratios, gate, verbose=given["verbose"])
    if given["output"]:
        with row_stream.opened(given["output"]) as stream:
            stream.write(text)
    if stopped:
        raise KeyboardInterrupt
    if old and (others := len(rows) - len(gate)):
        render.note(f"note: {given['compare']} has no row of the same settings for {others} of {len(rows)}")
    below = [r for r in gate if given["fail_below"] is not None and (r.ratio or 0.0) < given["fail_below"]]
    if below:
        render.note(f"{len(below)} of {len(gate)} below {given['fail_below']:g}")
    failed = any(row["error"] and not row.get("probed") for row in rows)
    unread = any(way.get("photos") and way["failed"] == way["photos"] for way in found.get("whole_way", ()))
    return 1 if below or failed or unread or (old and not gate) else 0


def _check(given: dict[str, Any]) -> None:
    if given["fail_below"] is not None and not given["compare"]:
        raise click.UsageError("--fail-below belongs to --compare.")
    if given["train"] and (given["data"] or given["against"]):
        raise click.UsageError("--train excludes --data and --against.")
    if "auto" in (given["batches"] or ()) and (len(given["batches"]) > 1 or given["against"] or given["data"]):
        raise click.UsageError("-b auto stands alone, without --against and --data.")
    if given["data"] and not Path(given["data"]).is_dir():
        raise click.UsageError(f"There is no folder {given['data']}.")
    if given["overwrite"] and not given["output"]:
        raise click.UsageError("--overwrite is for -o FILE.")
    if given["output"]:
        row_stream.check(given["output"], overwrite=given["overwrite"], inputs=[given["compare"]])
    if given["plot"]:
        check_output(given["plot"])
    if given["plot"] and not Path(given["plot"]).absolute().parent.is_dir():
        raise click.UsageError(f"The folder of {given['plot']} does not exist.")


@dataclass
class _Measured:
    """What has come so far. pairs: settings and their rows. more: other parts of the document, by name."""

    pairs: list[tuple[Setting, dict[str, Any]]] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    more: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for _, row in self.pairs]


def _measure(run: Bench, wanted: list[Setting], given: dict[str, Any], into: _Measured) -> None:
    """Everything that was asked for, as it comes, so that nothing is lost when one stops it."""
    from convnext_cli.benchmarking import compare, peers, sweep

    if given["against"]:
        for setting in wanted:
            group = [setting, *(setting.replace(peer=name) for name in peers.installed(given["against"], render.note))]
            run.say(f"in turns: {', '.join(s.runner for s in group)}: {setting.describe()}")
            rows = run.interleaved(group)
            into.pairs += zip(group, rows, strict=True)
            into.ratios += compare.interleaved(rows)
    elif given["batches"] == ("auto",):
        for setting in wanted:
            for step in sweep.batches(run, setting):
                if isinstance(step, sweep.Batches):
                    into.more.setdefault("batches", []).append(step.to_dict())
                else:
                    into.pairs.append((setting.replace(batch_size=step["batch_size"]), step))
    else:
        for pair in zip(wanted, run.measure(wanted), strict=True):
            into.pairs.append(pair)
    if given["data"]:
        into.more["whole_way"] = [run.whole_way(setting, given["data"], _RUNS) for setting in wanted]


def _bases(run: Bench, given: dict[str, Any]) -> list[Setting]:
    """A setting for each model."""
    from convnext_cli import zoo
    from convnext_cli.base.errors import ModelError
    from convnext_cli.benchmarking.setting import Setting

    text = given["models"] or ("convnext_tiny" if given["at_random"] else zoo.default_model())
    names = [text] if Path(text).exists() else [name.strip() for name in text.split(",")]
    if given["at_random"]:
        return [run.random_weights(name) for name in names]
    try:
        return [Setting(name, str(zoo.resolve(name))) for name in names]
    except ModelError as error:
        more = "or measure an architecture with weights drawn at random: --random"
        raise ModelError(error.message, f"{error.hint}\n{more}" if error.hint else more) from None


def _values(given: dict[str, Any], device: str) -> dict[str, Any]:
    """By field of a setting, what is to be tried on a device."""
    from convnext_cli.base import environment
    from convnext_cli.base.threads import usable_threads

    on_gpu = device not in ("auto", "cpu") or (device == "auto" and bool(environment.gpus()))
    full = 64 if on_gpu else 8
    usual = (full,) if given["data"] or given["train"] else (1, full)
    return {
        "engine": given["engine"] if isinstance(given["engine"], tuple) else (given["engine"],),
        "device": (device,),
        "dtype": given["dtype"],
        "dtype_is_asked": ("dtype" in options.typed(click.get_current_context()),),
        "layout": given["layout"] or (None,),
        "compiled": tuple(word == "yes" for word in given["compiled"] or ("no",)),
        "threads": given["threads"] or (usable_threads(),),
        "size": given["size"] or (None,),
        "mode": ("train",) if given["train"] else ("forward",),
        "batch_size": (1,) if given["batches"] == ("auto",) else given["batches"] or usual,
    }
