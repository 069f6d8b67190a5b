"""The ways in which a benchmark deceives, by their numbers in the list of pitfalls, and that none of them is open here.

Where a pitfall is about time, samples are made or a clock is turned by hand: nothing here waits, and a busy machine
changes no result.
"""

from __future__ import annotations

import gc
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convnext_cli import benchmarking, zoo
from convnext_cli.base import environment, memory
from convnext_cli.benchmarking import (
    compare,
    disturbance,
    inputs,
    measure,
    row,
    statistics,
    whole_way,
    work,
    worker,
)
from convnext_cli.benchmarking.process import Worker, WorkerError
from convnext_cli.benchmarking.runs import Bench
from convnext_cli.benchmarking.setting import Setting
from convnext_cli.model.config import VARIANTS
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from tests.helpers.paths import ROOT, SAMPLES

ROOM = Path(benchmarking.__file__).parent
OPENED = {"macs": 10**9, "minimum_bytes": 10**6, "load_s": 0.1, "usable_threads": 2, "image_size": [80, 80]}
WARMED = {"first_call_s": 3.0, "warmup_s": 0.5, "inputs": 9, "input_bytes": 1000}
ENDED = {"peak_memory_bytes": 10**8, "memory": {}, "recompilations": 0, "involuntary_switches_per_image": 0.0}


class Clock:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def engine(self, seconds: Callable[[int], float]) -> Callable[[Any], Any]:
        """A call that takes so many seconds by its number."""
        self.calls = 0

        def call(batch: Any) -> Any:
            self.now += seconds(self.calls)
            self.calls += 1
            return batch

        return call


def setting(**values: Any) -> Setting:
    return Setting("default", str(zoo.resolve("default")), **values)


def made(samples: list[float], turns: int = 1, ended: dict[str, Any] = ENDED, **values: Any) -> row.Row:
    """A row of such samples, in seconds."""
    size = len(samples) // turns
    parts = [samples[i * size : (i + 1) * size] for i in range(turns)]
    runs = [{"seconds": part, "wall": sum(part), "warm": True, "collections": 0} for part in parts]
    found = row.measured(setting(**values), OPENED, WARMED, runs, ended, 0.0)
    found["disturbed"] = False
    return found


def noisy(middle: float, count: int = 200, seed: int = 0, spread: float = 0.02) -> list[float]:
    draw = random.Random(seed)
    return [middle * draw.uniform(1 - spread, 1 + spread) for _ in range(count)]


def test_01_a_result_that_may_not_be_there_yet_is_refused() -> None:
    class Later:
        name = "asynchronous"

        def __call__(self, batch: np.ndarray) -> object:
            return object()  # a handle

    session = worker.Session(lambda _: None)
    session._engine = Later()
    with pytest.raises(TypeError, match="end of its call"):
        session._checked(np.zeros(1))


@pytest.mark.gpu
def test_01_twice_the_forwards_take_twice_the_time_and_events_agree() -> None:
    import time

    import torch

    from convnext_cli.runtimes.select import open_engine

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")

    engine = open_engine(zoo.resolve("default"), engine="torch", device="cuda")
    batch = np.random.default_rng(0).standard_normal((64, 3, 80, 80), np.float32)
    for _ in range(20):
        engine(batch)

    def wall(n: int) -> tuple[float, float]:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin = time.perf_counter()
        start.record()
        for _ in range(n):
            engine(batch)
        end.record()
        end.synchronize()
        return time.perf_counter() - begin, start.elapsed_time(end) / 1000

    half, _ = wall(100)
    whole, events = wall(200)
    assert whole >= 1.8 * half
    assert events == pytest.approx(whole, rel=0.05)


def test_02_warm_up_goes_on_until_the_times_are_flat() -> None:
    clock = Clock()
    slow_for = 100  # calls; later ones take 10 ms
    call = clock.engine(lambda i: 0.010 + 0.040 * max(0.0, 1 - i / slow_for))
    measure.warm_up(call, lambda: 0, clock)
    assert clock.calls > slow_for
    run = measure.sample(call, lambda: 0, 1.0, clock)
    assert run.warm
    assert max(run.seconds) < 0.0105


def test_02_samples_that_began_too_early_are_warm_up() -> None:
    clock = Clock()
    call = clock.engine(lambda i: 0.050 if i < 30 else 0.010)
    run = measure.sample(call, lambda: 0, 2.0, clock)
    assert run.warm
    assert max(run.seconds) == pytest.approx(0.010)


def test_02_what_never_settles_is_said() -> None:
    clock = Clock()
    run = measure.sample(clock.engine(lambda i: 0.98**i), lambda: 0, 5.0, clock)
    assert not run.warm
    assert "unstable: still warming up" in row.measured(setting(), OPENED, WARMED, [vars(run)], ENDED, 0.0)["warnings"]


def test_03_compiling_is_told_apart_and_recompiling_is_unstable() -> None:
    found = made(noisy(0.01))
    assert found["first_call_s"] == 3.0
    assert found["compile_s"] == pytest.approx(3.0, abs=0.02)
    assert found["latency_max_ms"] < 11
    again = made(noisy(0.01), ended=ENDED | {"recompilations": 2})
    assert not again["stable"]
    assert "2 recompilations" in " ".join(again["warnings"])


def test_04_a_last_batch_that_is_not_full_costs_no_more() -> None:
    photo = 0.01
    assert whole_way.partial_batch([(4, 9.0), (4, 4 * photo), (1, 5.0), (1, 2 * photo)], 4) == pytest.approx(2.0)
    assert whole_way.partial_batch([(4, 9.0), (4, 4 * photo), (1, 0.5), (1, 0.5)], 4) == pytest.approx(50.0)
    assert whole_way.partial_batch([(4, 9.0), (4, 4 * photo)], 4) is None


def test_05_a_batch_that_does_not_fit_stays_that_batch() -> None:
    with Bench(seconds=0, checks=False) as bench:
        (found,) = bench.measure([setting(batch_size=10**8)])
    assert found["batch_size"] == 10**8
    assert found["error"]["kind"] == "out_of_memory"
    assert found["images_per_second"] is None


def test_06_another_error_is_not_taken_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Worker, what: str, **values: Any) -> dict[str, Any]:
        if what == "warm":
            raise WorkerError("RuntimeError: x")
        return ask(self, what, **values)

    ask = Worker.ask
    monkeypatch.setattr(Worker, "ask", broken)
    with Bench(seconds=0, checks=False) as bench, pytest.raises(RuntimeError, match="x"):
        list(bench.measure([setting()]))


def test_06_the_process_tells_errors_from_want_of_memory() -> None:
    with Worker() as process:
        with pytest.raises(WorkerError, match="TypeError"):
            process.ask("warm", no_such="value")
        with pytest.raises(WorkerError, match="AttributeError"):
            process.ask("no_such_request")


def test_06_only_torchs_words_for_want_of_memory_count() -> None:
    import torch

    from convnext_cli.benchmarking.networks import memory_errors

    with pytest.raises(MemoryError), memory_errors():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="x"), memory_errors():
        raise RuntimeError("x")


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_07_inputs_go_round_and_are_larger_than_the_cache(batch_size: int) -> None:
    cache = 1 << 20
    found = inputs.Inputs(batch_size, 32, 32, seed=1, cache=cache)
    batches = [found.next().copy() for _ in range(found.count)]
    assert found.count >= 8
    assert found.nbytes > cache
    assert len({batch.tobytes() for batch in batches}) == found.count
    assert all(batch.shape == (batch_size, 3, 32, 32) for batch in batches)
    assert (found.next() == batches[0]).all()


def test_07_inputs_are_others_in_each_run() -> None:
    assert inputs.fresh_seed() != inputs.fresh_seed()
    first, second = (inputs.Inputs(1, 8, 8, seed, cache=0).next() for seed in (1, 2))
    assert (first != second).any()


def test_08_zeros_are_never_measured_and_their_difference_is_told() -> None:
    found = inputs.Inputs(2, 16, 16, seed=1, cache=0)
    assert all(0.8 < found.next().std() < 1.2 for _ in range(found.count))
    told = made(noisy(0.01))
    usual, quick = [0.010] * 10, [0.009] * 10
    row.add_checks(told, {"fresh": usual, "same": usual, "zeros": quick, "tiny": usual})
    assert told["warnings"] == ["a call takes 0.90 times as long with zeros"]
    assert told["checks"]["zeros"]["time_ratio"] == pytest.approx(0.9)


def test_09_a_multiply_add_is_two_operations() -> None:
    macs = work.macs(VARIANTS["convnext_tiny"], (224, 224))
    assert macs / 1e9 == pytest.approx(4.46, abs=0.01)
    assert work.flops(macs, "forward") / 1e9 == pytest.approx(8.9, abs=0.05)
    assert work.flops(macs, "train") == 3 * work.flops(macs, "forward")
    assert "1 MAC = 2 FLOPs" in work.MACS_RULE
    found = made([0.01] * 20)
    assert found["achieved_flops"] == pytest.approx(2 * 10**9 / 0.01)


def test_10_a_stall_moves_the_median_by_nothing_and_the_maximum_shows_it() -> None:
    calm = made(noisy(0.01))
    stalled = made([*noisy(0.01)[:-1], 1.0])
    assert stalled["latency_p50_ms"] == pytest.approx(calm["latency_p50_ms"], rel=0.02)
    assert stalled["images_per_second"] == pytest.approx(calm["images_per_second"], rel=0.02)
    assert stalled["latency_max_ms"] == pytest.approx(1000)
    assert any(text.startswith("stalls") for text in stalled["warnings"])


def test_11_the_same_twice_is_no_difference() -> None:
    surprised = 0
    for seed in range(40):
        a, b = made(noisy(0.01, seed=2 * seed), turns=10), made(noisy(0.01, seed=2 * seed + 1), turns=10)
        (found,) = compare.interleaved([a, b])
        assert found.interval is not None
        surprised += not found.interval[0] <= 1 <= found.interval[1]
    assert surprised <= 8  # of 40; one in twenty is expected of an interval of 95 %


def test_11_a_real_difference_is_seen() -> None:
    a, b = made(noisy(0.01, seed=1), turns=10), made(noisy(0.011, seed=2), turns=10)
    (found,) = compare.interleaved([a, b])
    assert found.ratio == pytest.approx(1.1, rel=0.02)
    assert found.certain


def test_12_drift_is_told_and_the_sensors_are_recorded() -> None:
    rising = made([0.01 * (1 + 0.12 * i / 200) for i in range(200)])
    assert not rising["stable"]
    assert any("drifted by +8%" in text for text in rising["warnings"])
    assert {"clock_mhz", "celsius", "throttled", "gpus"} <= environment.sensors().keys()


def test_13_an_order_that_makes_another_winner_makes_nothing_certain() -> None:
    """What comes second is slowed by what came first; the two are the same."""
    rounds = [(0.010, 0.012) if i % 2 == 0 else (0.012, 0.010) for i in range(10)]
    ours, theirs = ([pair[k] for pair in rounds for _ in range(5)] for k in (0, 1))
    (found,) = compare.interleaved([made(ours, turns=10), made(theirs, turns=10)])
    assert found.order is not None
    assert (found.order[0] > 1) != (found.order[1] > 1)
    assert not found.certain


@pytest.mark.slow
def test_13_turns_are_taken_in_both_orders() -> None:
    asked: list[tuple[int, str]] = []
    ask = Worker.ask

    def noted(self: Worker, what: str, **values: Any) -> dict[str, Any]:
        if what in ("turn", "sample"):
            asked.append((self.pid, what))
        return ask(self, what, **values)

    with pytest.MonkeyPatch.context() as patch, Bench(seconds=0.04, checks=False) as bench:
        patch.setattr(Worker, "ask", noted)
        patch.setattr(bench, "_ceiling", lambda *_: {"flops": None, "by": None, "copy": None, "disturbed": []})
        rows = bench.interleaved([setting(), setting(batch_size=2)], rounds=4)
    pids = [pid for pid, _ in asked]
    assert pids == [pids[0], pids[1], pids[1], pids[0]] * 2
    assert pids[0] != pids[1]
    assert [len(found["rounds"]) for found in rows] == [4, 4]


def test_14_more_threads_than_processors_are_told() -> None:
    assert any("64 threads on 2 processors" in text for text in made(noisy(0.01), threads=64)["warnings"])
    assert made(noisy(0.01), threads=2)["warnings"] == []
    assert made(noisy(0.01))["involuntary_switches_per_image"] == 0.0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no processor affinity")
def test_15_affinity_is_what_is_reported() -> None:
    code = (
        "import os, json; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from convnext_cli.base import environment; print(json.dumps(environment.describe()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["usable_threads"] == 1


def test_16_denormal_numbers_that_slow_are_told() -> None:
    told = made(noisy(0.01))
    usual, slow = [0.010] * 10, [0.013] * 10
    row.add_checks(told, {"fresh": usual, "same": usual, "zeros": usual, "tiny": slow})
    assert told["warnings"] == ["a call takes 1.30 times as long with denormal numbers"]


def test_16_denormal_numbers_are_among_the_checks() -> None:
    with Worker() as process:
        process.ask("open", setting=setting().to_dict())
        process.ask("warm", seed=1)
        seconds = process.ask("checks", seconds=0.0)["checks"]
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys(
        ("fresh", "same", "zeros", "tiny"), 3
    )


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_17_a_brief_allocation_shows() -> None:
    code = (
        "import sys, mmap; from convnext_cli.base import memory; before = memory.peak();"
        "block = mmap.mmap(-1, 500 << 20); block.write(b'x' * (500 << 20)); block.close();"
        "print(memory.peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 500 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
@pytest.mark.slow
def test_18_a_large_one_before_does_not_show_in_a_small_one() -> None:
    """Each setting has a process; what the parent and the setting before it needed is not in its peak."""

    def peak(batch_size: int) -> int:
        with Worker() as process:
            process.ask("open", setting=setting(batch_size=batch_size).to_dict())
            process.ask("warm", seed=1)
            return int(process.ask("end")["peak_memory_bytes"])

    ballast = np.ones(600 << 17)  # 600 MiB here, at which ru_maxrss of a child would begin
    small, large, again = peak(1), peak(256), peak(1)
    assert again == pytest.approx(small, rel=0.05)
    assert large > 1.2 * small
    assert small < ballast.nbytes


@pytest.mark.slow
def test_19_the_precision_is_read_back_and_proven() -> None:
    with Bench(seconds=0.05, checks=False) as bench:
        bench.ceilings["cpu", "float32", 1] = {"flops": 1e12, "by": "", "copy": 1e10, "disturbed": []}
        (found,) = bench.measure([setting(engine="torch")])
        bench._references[str(zoo.resolve("default")), None] = [[0.0] * 199 + [1.0]]
        (wrong,) = bench.measure([setting(engine="torch")])
    assert found["dtype"] == "float32"
    assert found["max_logit_difference"] < 1e-4
    assert wrong["error"]["kind"] == "wrong"


def test_20_both_the_forward_and_the_whole_way_are_told() -> None:
    predictor = open_predictor(PredictorOptions.of(model="default", threads=1, workers=1, batch_size=2))
    photos = list(whole_way.Finder(recursive=False).named(SAMPLES * 4))
    # other tests run beside this one, and take the processor between two stages
    several = [whole_way.stage_by_stage(predictor, photos) for _ in range(10)]
    for found in several:
        assert tuple(found["stages_s"]) == whole_way.STAGES
        assert sum(found["stages_s"].values()) == pytest.approx(found["stages_share_of_wall"] * found["alone_s"])
        assert found["stages_share_of_wall"] <= 1.1
    assert max(found["stages_share_of_wall"] for found in several) >= 0.9


def test_21_the_first_run_is_told_apart() -> None:
    with Worker() as process:
        way = process.ask("whole_way", setting=setting(batch_size=2).to_dict(), folder=str(ROOT / "samples"), runs=3)
    assert way["first_run_s"] > 0
    assert len(way["runs_s"]) == 2
    assert way["images_per_second"] == pytest.approx(way["photos"] / np.median(way["runs_s"]))


def test_22_no_garbage_is_collected_meanwhile() -> None:
    def litter(_: Any) -> None:
        for _ in range(100):
            knot: list[Any] = []
            knot.append(knot)

    run = measure.sample(litter, lambda: 0, 0.0, fewest=200)
    assert run.collections == 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    before = measure._collections()
    for _ in range(200):
        litter(None)
    assert measure._collections() > before  # as it would have been


def test_23_copies_are_inside_the_call() -> None:
    """What is timed takes an array of the host and gives one: the way of the pixels there and of the logits back."""
    with Worker() as process:
        process.ask("open", setting=setting(engine="torch").to_dict())
        assert np.asarray(process.ask("answer")["logits"]).shape == (1, 200)


@pytest.mark.slow
def test_24_a_wrong_answer_has_no_speed() -> None:
    with Bench(seconds=0.02, checks=False) as bench:
        bench._references[str(zoo.resolve("default")), None] = [list(np.linspace(-1, 1, 200))]
        (found,) = bench.measure([setting()])
    assert found["error"]["kind"] == "wrong"
    assert found["images_per_second"] is None
    assert found["samples_ms"] is None


def test_24_a_logit_that_is_no_number_is_wrong() -> None:
    from convnext_cli.benchmarking.runs import _Runner

    with Bench() as bench:
        one = setting()
        bench._references[one.path, None] = [[0.0, 1.0]]
        runner = _Runner.__new__(_Runner)
        runner._bench, runner.setting = bench, one

        class Says:
            def ask(self, what: str) -> dict[str, Any]:
                return {"logits": [[0.0, math.nan]]}

        runner._worker = Says()  # type: ignore[assignment]
        assert runner._difference() == math.inf


def test_25_one_call_is_in_flight() -> None:
    assert made(noisy(0.01))["in_flight"] == pytest.approx(1, rel=0.1)
    samples = noisy(0.01)
    runs = [{"seconds": samples, "wall": sum(samples) / 4, "warm": True, "collections": 0}]
    overlapped = row.measured(setting(), OPENED, WARMED, runs, ENDED, 0.0)
    assert overlapped["in_flight"] == pytest.approx(4, rel=0.1)


def test_26_no_clock_that_can_be_set() -> None:
    for file in ROOM.glob("*.py"):
        found = re.findall(r"\btime\.time\(|\bdatetime\b|\btime\.monotonic\(|\bfrom time import", file.read_text())
        assert not found, file.name


def test_27_other_work_on_the_machine_is_told(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    cpu = f"cpu{min(os.sched_getaffinity(0))}" if hasattr(os, "sched_getaffinity") else "cpu0"

    def ticks(user: int, idle: int, steal: int) -> None:
        stat.write_text(f"cpu  1 2 3\n{cpu} {user} 0 0 {idle} 0 0 0 {steal} 0 0\nintr 5\n")

    clock = Clock()
    ticks(user=1000, idle=1000, steal=0)
    watch = disturbance.Watch(clock=tick(clock), stat=stat)
    ticks(user=100_000_000, idle=101_000_000, steal=50_000_000)
    found = watch.stop()
    assert found.stolen == pytest.approx(0.2, abs=0.01)
    assert found.others == pytest.approx(0.4, abs=0.01)
    reasons = " ".join(found.reasons())
    assert "the host took 20%" in reasons
    assert "other processes took 40%" in reasons


def tick(clock: Clock) -> Callable[[], float]:
    """A clock that goes on by a second at each look."""

    def look() -> float:
        clock.now += 1
        return clock.now

    return look


def test_27_a_slower_machine_afterwards_is_told() -> None:
    assert disturbance.Disturbance(0.0, 0.0, 0.04).reasons() == []
    assert disturbance.Disturbance(None, None, 0.06).reasons() == [
        "disturbed: a fixed loop took 6% more time afterwards"
    ]


def test_statistics_hold_their_promises() -> None:
    assert statistics.percentile([1, 2, 3, 4], 50) == 2.5
    assert statistics.percentile([5], 99) == 5
    with pytest.raises(ValueError, match="no samples"):
        statistics.percentile([], 50)
    assert [len(part) for part in statistics.repeats(list(range(25)))] == [2, 3, 3, 2, 2, 3, 3, 2, 2, 3]
    assert statistics.repeats([1.0, 2.0]) == [[1.0], [2.0]]
    low, high = statistics.bootstrap([[1.0], [2.0], [3.0]])
    assert 1 <= low < high <= 3
    assert memory.available() is None or memory.available()
