"""The verb ``bench``: how fast models run on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from convnext_cli import zoo
from convnext_cli.base import environment
from convnext_cli.base.errors import ModelError, OutputError, UsageError
from convnext_cli.base.libraries import libraries_said
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.base.text import JsonObject
from convnext_cli.base.threads import usable_threads
from convnext_cli.benchmarking import compare, plot, sweep
from convnext_cli.benchmarking.compare import Ratio
from convnext_cli.benchmarking.row import Row
from convnext_cli.benchmarking.runs import Bench
from convnext_cli.benchmarking.setting import Layout, Setting
from convnext_cli.runtimes.registry import DTYPES, ENGINES
from convnext_cli.storage import output_file
from convnext_cli.storage.addresses import check_output

_RUNS = 4  # over a folder


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What ``bench`` is asked for. Values in a tuple are tried in every combination.

    Args:
        models: names, files or folders; () for the user's default.
        random: the models are names of architectures, whose weights are drawn at random; () is convnext_tiny.
        engines: of ``registry.ENGINES``.
        devices: as for ``ModelOptions.device``.
        dtypes: of ``registry.DTYPES``; () for float32, or the precision of an exported file.
        layouts: of the tensors in torch; () for the engine's own.
        batch_sizes: photos a call; () for 1 and 8 on a CPU, 1 and 64 on a GPU; "auto" finds the best, and the largest
            that fits.
        threads: () for all that this process may use.
        sizes: edges of the input in pixels; () for the model's own.
        compiled: whether torch compiles the network.
        data: a folder of photos: the whole way from file to label is measured too.
        train: measure a training step instead: forward, backward, AdamW.
        against: other libraries that take turns: "timm", "torchvision+channels_last" …
        compare: a file that ``bench --json`` wrote, for ratios to its rows.
        fail_below: a lower ratio than this is a failure.
        plot: a .png or .svg to draw latency against throughput into.
        seconds: of samples for each setting.
        checks: try zeros, one input and denormal numbers too.
        output: a file for the JSON document; None for none.
        overwrite: whether an existing output may be replaced.

    Raises:
        UsageError: a value is unknown, or two of them contradict each other.
    """

    models: tuple[str, ...] = ()
    random: bool = False
    engines: tuple[str, ...] = ("auto",)
    devices: tuple[str, ...] = ("auto",)
    dtypes: tuple[str, ...] = ()
    layouts: tuple[Layout, ...] = ()
    batch_sizes: tuple[int, ...] | Literal["auto"] = ()
    threads: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    compiled: tuple[bool, ...] = (False,)
    data: str | Path | None = None
    train: bool = False
    against: tuple[str, ...] = ()
    compare: str | Path | None = None
    fail_below: float | None = None
    plot: str | Path | None = None
    seconds: float = 5.0
    checks: bool = True
    output: str | Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        known = {"engines": tuple(ENGINES), "dtypes": DTYPES, "layouts": get_args(Layout)}
        for name, allowed in known.items():
            for value in getattr(self, name):
                if value not in allowed:
                    raise UsageError(f"{name} must be of {', '.join(allowed)}, not {value!r}")
        if self.fail_below is not None and self.compare is None:
            raise UsageError("--fail-below belongs to --compare", "name an earlier run: --compare OLD.json")
        if self.overwrite and self.output is None:
            raise UsageError("--overwrite is for -o FILE", "name a file with -o, or leave --overwrite out")
        if self.train and (self.data is not None or self.against):
            raise UsageError("--train excludes --data and --against", "leave them out")
        if self.batch_sizes == "auto" and (self.against or self.data is not None):
            raise UsageError("-b auto stands alone, without --against and --data", "leave them out")


@dataclass(frozen=True)
class BenchResult:
    """What was measured.

    Args:
        document: the JSON object of ``bench --json``: environment, rows, ceilings and more (docs/bench.md).
        ratios: to other libraries that took turns.
        compared: ratios to the rows of an earlier run.
        unmatched: rows that the earlier run has no row for.
        below: ratios to the earlier run below the limit.
        interrupted: whether Ctrl-C ended it; the rows are those that were complete.
    """

    document: JsonObject
    ratios: tuple[Ratio, ...] = ()
    compared: tuple[Ratio, ...] = ()
    unmatched: int = 0
    below: int = 0
    interrupted: bool = False

    @property
    def rows(self) -> list[Row]:
        """One for each setting."""
        return list(self.document["rows"])

    def to_json(self) -> str:
        """The document as ``bench --json`` prints it."""
        return json.dumps(self.document, indent=1, allow_nan=False) + "\n"

    @property
    def passed(self) -> bool:
        """Whether every setting ran, photos could be read, and no ratio is below the limit."""
        failed = any(row["error"] and not row.get("probed") for row in self.rows)
        ways = self.document.get("whole_way", ())
        unread = any(way.get("photos") and way["failed"] == way["photos"] for way in ways)
        nothing_alike = self.unmatched > 0 and not self.compared
        return not (self.below or failed or unread or nothing_alike)


class UnwrittenError(OutputError):
    """The output could not be written; ``result`` has what was measured."""

    def __init__(self, error: OutputError, result: BenchResult) -> None:
        super().__init__(error.message, error.hint)
        self.result = result


@dataclass
class _Measured:
    """What has come so far. pairs: settings and their rows. more: other parts of the document, by name."""

    pairs: list[tuple[Setting, Row]] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    more: dict[str, list[Mapping[str, object]]] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        return [row for _, row in self.pairs]


@libraries_said()
def bench(request: BenchRequest, listener: Listener = SILENT) -> BenchResult:
    """Measure how fast models run here; each setting runs in a process of its own.

    Args:
        request: what to measure.
        listener: hears which setting is being measured.

    Raises:
        UsageError: a file that is named cannot be used, or the earlier run has no row of these settings.
        ModelError: a model is not here.
        OutputError: the output cannot be written; an UnwrittenError where all was measured before.
        ConvNextError: no setting can run; the reason is that of the first.
    """
    _check_files(request)
    old = compare.read(Path(request.compare))["rows"] if request.compare is not None else None
    if request.plot is not None:
        plot.check(Path(request.plot))
    place, measured, interrupted = environment.describe(), _Measured(), False
    with Bench(request.seconds, request.checks, say=listener.stage) as run:
        bases = _bases(run, request)
        settings = [
            setting
            for device in dict.fromkeys(request.devices)
            for setting in sweep.settings(bases, _values(request, device))
        ]
        comparable = old is None or request.batch_sizes == "auto" or any(compare.may_match(s, old) for s in settings)
        if not comparable:
            raise UsageError(
                f"{request.compare} has no row of the same settings", "give the same options as for that run"
            )
        try:
            _measure(run, settings, request, measured, listener)
            run.raise_ceilings(measured.rows)
        except KeyboardInterrupt:
            interrupted = True
    rows = measured.rows
    if interrupted and not rows:
        raise KeyboardInterrupt
    if run.refused and all(row["error"] for row in rows):
        raise run.refused[0]
    compared = compare.with_old(rows, old) if old is not None else []
    document: JsonObject = {
        "environment": place,
        "rows": rows,
        "ceilings": list(run.ceilings.values()),
        **measured.more,
        "ratios": [ratio.to_dict() for ratio in measured.ratios],
        "compared": [ratio.to_dict() for ratio in compared],
    }
    if sum(setting.peer is None for setting, _ in measured.pairs) > 1:
        document["winners"] = [{"what": what, "command": line} for what, line in sweep.winners(measured.pairs)]
    if request.plot is not None:
        plot.draw(rows, Path(request.plot), place["processor"])
        listener.stage(f"drawn: {request.plot}")
    result = BenchResult(
        document=document,
        ratios=tuple(measured.ratios),
        compared=tuple(compared),
        unmatched=0 if old is None else len(rows) - len(compared),
        below=sum((ratio.ratio or 0.0) < (request.fail_below or 0.0) for ratio in compared),
        interrupted=interrupted,
    )
    if request.output is not None:
        try:
            output_file.write(Path(request.output), result.to_json().encode())
        except OutputError as error:
            raise UnwrittenError(error, result) from error
    return result


def _check_files(request: BenchRequest) -> None:
    """Raise UsageError or OutputError for files and folders that cannot be used."""
    if request.output is not None:
        earlier = None if request.compare is None else str(request.compare)
        output_file.check(str(request.output), overwrite=request.overwrite, inputs=[earlier])
    if request.data is not None and not Path(request.data).is_dir():
        raise UsageError(f"there is no folder {request.data}", "name a folder of photos: --data FOLDER")
    if request.plot is not None:
        check_output(str(request.plot))
        if not Path(request.plot).absolute().parent.is_dir():
            raise UsageError(f"the folder of {request.plot} does not exist", "make it first, or name another place")


def _bases(run: Bench, request: BenchRequest) -> list[Setting]:
    """A setting for each model."""
    if request.random:
        return [run.random_weights(name) for name in request.models or ("convnext_tiny",)]
    try:
        return [Setting(name, str(zoo.resolve(name))) for name in request.models or (zoo.default_model(),)]
    except ModelError as error:
        more = "or measure an architecture with weights drawn at random: --random"
        raise ModelError(error.message, f"{error.hint}\n{more}" if error.hint else more) from None


def _values(request: BenchRequest, device: str) -> dict[str, Sequence[object]]:
    """By field of a setting, the values to be tried on a device."""
    on_gpu = device not in ("auto", "cpu") or (device == "auto" and bool(environment.gpus()))
    full = 64 if on_gpu else 8
    usual = (full,) if request.data is not None or request.train else (1, full)
    return {
        "engine": request.engines,
        "device": (device,),
        "dtype": request.dtypes or ("float32",),
        "dtype_is_asked": (bool(request.dtypes),),
        "layout": request.layouts or (None,),
        "compiled": request.compiled,
        "threads": request.threads or (usable_threads(),),
        "size": request.sizes or (None,),
        "mode": ("train",) if request.train else ("forward",),
        "batch_size": (1,) if request.batch_sizes == "auto" else request.batch_sizes or usual,
    }


def _measure(run: Bench, settings: list[Setting], request: BenchRequest, into: _Measured, listener: Listener) -> None:
    """Everything that was asked for, as it comes, so that nothing is lost when one stops it."""
    if request.against:
        from convnext_cli.benchmarking import peers

        for setting in settings:
            names = peers.installed(",".join(request.against), listener.note)
            group = [setting, *(setting.replace(peer=name) for name in names)]
            run.say(f"in turns: {', '.join(s.runner for s in group)}: {setting.describe()}")
            rows = run.interleaved(group)
            into.pairs += zip(group, rows, strict=True)
            into.ratios += compare.interleaved(rows)
    elif request.batch_sizes == "auto":
        for setting in settings:
            for step in sweep.batches(run, setting):
                if isinstance(step, sweep.Batches):
                    into.more.setdefault("batches", []).append(step.to_dict())
                else:
                    into.pairs.append((setting.replace(batch_size=step["batch_size"]), step))
    else:
        for pair in zip(settings, run.measure(settings), strict=True):
            into.pairs.append(pair)
    if request.data is not None:
        into.more["whole_way"] = [run.whole_way(setting, str(request.data), _RUNS) for setting in settings]
