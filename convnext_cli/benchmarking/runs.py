"""Settings to rows: each in a process of its own, one after the other, or taking turns."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from convnext_cli.base import environment
from convnext_cli.base.errors import ConvNextError, UnavailableError
from convnext_cli.base.text import JsonObject
from convnext_cli.benchmarking import row
from convnext_cli.benchmarking.disturbance import Watch
from convnext_cli.benchmarking.inputs import fresh_seed
from convnext_cli.benchmarking.process import Say, Worker, WorkerError
from convnext_cli.benchmarking.row import Row
from convnext_cli.benchmarking.setting import Setting

ROUNDS = 10
_INT8_TOLERANCE = 0.25  # int8 is judged by its answers on photos when it is prepared; here only that it is the network


@dataclass
class Bench:
    """One run of the bench: what its rows share. Use it in a ``with``: random weights go at its end.

    seconds: of samples for each setting. checks: whether other inputs are tried beside. say: progress, one line each.
    ceilings, references: what was measured once for several rows. refused: why rows have no figures, where that can be
    fixed.
    """

    seconds: float = 5.0
    checks: bool = True
    say: Say = lambda _: None
    seed: int = field(default_factory=fresh_seed)
    ceilings: dict[tuple[str, str, int], JsonObject] = field(default_factory=dict)
    refused: list[ConvNextError] = field(default_factory=list)
    _references: dict[tuple[object, ...], list[list[float]]] = field(default_factory=dict)
    _prepared: set[tuple[object, ...]] = field(default_factory=set)
    _random: dict[str, Path] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _folder: Path | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def random_weights(self, architecture: str) -> Setting:
        """A setting with weights drawn at random for an architecture of ``config.VARIANTS``; the file and the
        engines that are prepared for it go with the bench. Raises ModelError."""
        if self._folder is None:
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="convnext-bench-")))
        if architecture not in self._random:
            with Worker(say=self.say) as worker:
                path = self._folder / f"{architecture}.safetensors"
                worker.ask("random_weights", architecture=architecture, path=str(path))
                self._random[architecture] = path
        return Setting(architecture, str(self._random[architecture]), home=str(self._folder / "home"))

    def measure(self, settings: Sequence[Setting]) -> Iterator[Row]:
        """A row for each setting, one after the other.

        What is out of memory, cannot be or answers wrongly is a row that says so. A single setting that cannot be
        raises ConvNextError instead, or WorkerError for what nobody foresaw.
        """
        for at, setting in enumerate(settings, 1):
            self.say(f"{at}/{len(settings)} {setting.describe()}")
            yield self.interleaved([setting], rounds=1, alone=len(settings) == 1)[0]

    def interleaved(self, settings: Sequence[Setting], rounds: int = ROUNDS, *, alone: bool = False) -> list[Row]:
        """A row for each setting; they take turns, in the opposite order each time.

        All use the same inputs. alone: raise what cannot be rather than give a row that says it.
        """
        for setting in settings:
            self._prepare(setting, alone)
        watch, before = Watch(), environment.sensors()
        with ExitStack() as stack:
            runners = [_Runner(self, setting, stack) for setting in settings]
            for runner in runners:
                runner.begin(alone)
            running = [runner for runner in runners if runner.row is None]
            for i in range(rounds):
                for runner in running if i % 2 == 0 else reversed(running):
                    runner.turn(self.seconds / rounds, alone=rounds == 1)
            rows = [runner.finish() for runner in runners]
        disturbance, after = watch.stop(), environment.sensors()
        for done in rows:
            if done["error"]:
                continue
            done["disturbed"] = bool(disturbance.reasons())
            done["disturbance"] = vars(disturbance)
            done["sensors"] = {"before": before, "after": after}
            done["seed"] = self.seed
            done["warnings"] += disturbance.reasons()
            if (after["throttled"] or 0) > (before["throttled"] or 0):
                done["stable"] = False
                done["warnings"].append("unstable: the processor was throttled")
            row.add_ceiling(done, self._ceiling(done["device"], done["dtype"], done["threads"]))
        return rows

    def whole_way(self, setting: Setting, folder: str, runs: int) -> JsonObject:
        """From the files of a folder to labels (``whole_way.measure``). Raises what ``measure`` raises."""
        self.say(f"from file to label: {setting.describe()}")
        with Worker(home=setting.home, say=self.say) as worker:
            try:
                return worker.ask("whole_way", setting=setting.to_dict(), folder=folder, runs=runs)
            except MemoryError as error:
                return {"error": {"kind": "out_of_memory", "message": str(error)}}

    def reference(self, setting: Setting) -> list[list[float]] | None:
        """The logits of network.py in float32 on the reference input; None for ONNX files and for training."""
        if setting.path.endswith(".onnx") or setting.mode == "train":
            return None
        key = (setting.path, setting.size)
        if key not in self._references:
            plain = Setting(setting.model, setting.path, "torch", "cpu", threads=setting.threads, size=setting.size)
            with Worker(say=self.say) as worker:
                worker.ask("open", setting=plain.to_dict())
                self._references[key] = worker.ask("answer")["logits"]
        return self._references[key]

    def _prepare(self, setting: Setting, alone: bool) -> None:
        """Have an engine prepared in a process of its own, so that the one that is measured opens it as usual."""
        ours = setting.peer is None and setting.mode == "forward" and setting.layout is None
        if not ours or setting.engine == "torch" or setting.compiled:
            return
        key = (setting.path, setting.engine, setting.device, setting.dtype, setting.batch_size == 1)
        if key not in self._prepared:
            self._prepared.add(key)
            with Worker(home=setting.home, say=self.say) as worker:
                try:
                    worker.ask("open", setting=setting.to_dict(), prepare=True)
                except (ConvNextError, WorkerError):
                    if alone:
                        raise
                except MemoryError:
                    pass  # a row says so

    def raise_ceilings(self, rows: Sequence[Row]) -> None:
        """Measure all ceilings once more, keep the higher ones, and hold the rows against them.

        A ceiling that was disturbed is too low, and flatters.
        """
        for key, ceiling in self.ceilings.items():
            again = self.measure_ceiling(*key)
            best, other = (again, ceiling) if (again["flops"] or 0) > (ceiling["flops"] or 0) else (ceiling, again)
            disturbed = best["disturbed"] if other["disturbed"] else []
            self.ceilings[key] = best | {"copy": max(ceiling["copy"], again["copy"]), "disturbed": disturbed}
        for measured in rows:
            if not measured["error"]:
                row.add_ceiling(measured, self.ceilings[measured["device"], measured["dtype"], measured["threads"]])

    def _ceiling(self, device: str, dtype: str, threads: int) -> JsonObject:
        key = (device, dtype, threads)
        if key not in self.ceilings:
            self.ceilings[key] = self.measure_ceiling(*key)
        return self.ceilings[key]

    def measure_ceiling(self, device: str, dtype: str, threads: int) -> JsonObject:
        """``ceilings.measure`` in a process of its own, and why it may be too low: ``disturbed``."""
        self.say(f"ceiling of {device} in {dtype}")
        watch = Watch()
        with Worker(say=self.say) as worker:
            ceiling = worker.ask("ceilings", device=device, dtype=dtype, threads=threads)
        return ceiling | {"disturbed": watch.stop().reasons()}


class _Runner:
    """One setting in its process. ``row`` is set as soon as it is known that there will be no figures."""

    def __init__(self, bench: Bench, setting: Setting, stack: ExitStack) -> None:
        self._bench, self.setting = bench, setting
        self._worker = stack.enter_context(Worker(home=setting.home, say=bench.say))
        self._opened: JsonObject = {}
        self._turns: list[JsonObject] = []
        self.row: Row | None = None

    def begin(self, alone: bool) -> None:
        try:
            self._opened = self._worker.ask("open", setting=self.setting.to_dict())
            self._warmed = self._worker.ask("warm", seed=self._bench.seed)
        except ConvNextError as error:
            if alone:
                raise
            self._bench.refused.append(error)
            self._give_up("unavailable" if isinstance(error, UnavailableError) else "refused", error.message)
        except WorkerError as error:
            if alone:
                raise
            self._give_up("failed", str(error))
        except MemoryError as error:
            self._give_up("out_of_memory", str(error))

    def turn(self, seconds: float, *, alone: bool) -> None:
        if self.row is not None:
            return
        try:
            self._turns.append(self._worker.ask("sample" if alone else "turn", seconds=seconds))
        except MemoryError as error:
            self._give_up("out_of_memory", str(error))

    def finish(self) -> Row:
        if self.row is not None:
            return self.row
        bench, seconds = self._bench, None
        if bench.checks and self.setting.mode == "forward":
            seconds = self._worker.ask("checks", seconds=bench.seconds / 3)["checks"]
        ended = self._worker.ask("end")
        difference = self._difference()
        if difference is not None and difference > self._tolerance():
            return self._give_up("wrong", f"its answers are {difference:.1e} of their range from the network's")
        figures = row.measured(self.setting, self._opened, self._warmed, self._turns, ended, difference)
        if seconds:
            row.add_checks(figures, seconds)
        self.row = figures
        return figures

    def _difference(self) -> float | None:
        reference = self._bench.reference(self.setting)
        if reference is None:
            return None
        logits = self._worker.ask("answer")["logits"]
        spread = max(reference[0]) - min(reference[0])
        off = [abs(a - b) for line in logits for a, b in zip(line, reference[0], strict=True)]
        return max(off) / (spread or 1.0) if all(map(math.isfinite, off)) else math.inf

    def _tolerance(self) -> float:
        from convnext_cli.runtimes.reference import TOLERANCE

        dtypes = {self.setting.dtype, self._opened["dtype"]}
        return _INT8_TOLERANCE if "int8" in dtypes else TOLERANCE[self.setting.dtype]

    def _give_up(self, kind: str, message: str) -> Row:
        self._worker.close()
        self.row = row.failed(self.setting, kind, message, self._opened)
        return self.row
