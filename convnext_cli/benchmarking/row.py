"""Row: what one setting turned out to do, as JSON values.

The keys that other programs rely on are in ``KEYS``; more are there, and all are in docs/bench.md.
"""

from __future__ import annotations

from statistics import fmean, median
from typing import TypeAlias

from convnext_cli.base.text import JsonObject
from convnext_cli.benchmarking import statistics, work
from convnext_cli.benchmarking.setting import Setting

# A row of this run, or of the JSON file of an earlier one; and what the process of a setting answers
Row: TypeAlias = JsonObject
Values: TypeAlias = JsonObject

KEYS = (
    *("model", "engine", "device", "dtype", "batch_size", "image_size", "images_per_second"),
    *("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "warmup_s", "load_s", "peak_memory_bytes"),
    *("macs", "achieved_flops", "ceiling_flops", "stable", "samples_ms"),
)
UNSTABLE = 0.05  # half the width of the interval over repeats, as a share of the median
DRIFT = 0.05
STALLS = 0.10
_ENOUGH = 8  # rounds, for a difference to be reported
CHECKS = {"same": 0.03, "zeros": 0.03, "tiny": 0.20}  # a difference beyond it is reported


def failed(setting: Setting, kind: str, message: str, opened: Values | None = None) -> Row:
    """A row without figures. kind: "out_of_memory", "unavailable", "refused", "wrong" or "failed". The batch stays the
    one asked for."""
    return {**dict.fromkeys(KEYS), **_head(setting, opened or {}), "error": {"kind": kind, "message": message}}


def measured(
    setting: Setting, opened: Values, warmed: Values, turns: list[Values], ended: Values, difference: float | None
) -> Row:
    """A row with figures; ``complete`` adds what is known when all rows are done.

    turns: what the worker's ``sample`` or ``turn`` gave; several are rounds beside other settings.
    """
    samples = [second for turn in turns for second in turn["seconds"]]
    groups = [turn["seconds"] for turn in turns] if len(turns) > 1 else statistics.repeats(samples)
    middle, n = median(samples), setting.batch_size
    low, high = statistics.bootstrap(groups)
    photos_per_second, moved = n / middle, opened["minimum_bytes"]
    wall = sum(turn["wall"] for turn in turns)
    row = {
        **_head(setting, opened),
        "images_per_second": photos_per_second,
        "images_per_second_interval": [n / high, n / low],
        "images_per_second_wall": n * len(samples) / wall,
        "latency_p50_ms": 1000 * middle,
        "latency_p90_ms": 1000 * statistics.percentile(samples, 90),
        "latency_p99_ms": 1000 * statistics.percentile(samples, 99),
        "latency_mean_ms": 1000 * fmean(samples),
        "latency_max_ms": 1000 * max(samples),
        "first_call_s": warmed["first_call_s"],
        "compile_s": max(0.0, warmed["first_call_s"] - middle),
        "warmup_s": warmed["warmup_s"],
        "load_s": opened["load_s"],
        "peak_memory_bytes": ended["peak_memory_bytes"],
        "memory": ended["memory"],
        "achieved_flops": work.flops(opened["macs"], setting.mode) * photos_per_second if opened["macs"] else None,
        "achieved_bytes_per_second": moved / middle if moved and setting.mode == "forward" else None,
        "ceiling_flops": None,
        "inputs": warmed["inputs"],
        "max_logit_difference": difference,
        "in_flight": len(samples) / wall * fmean(samples),
        "involuntary_switches_per_image": ended["involuntary_switches_per_image"],
        "recompilations": ended["recompilations"],
        "garbage_collections": sum(turn["collections"] for turn in turns),
        "drift": statistics.drift(samples),
        "samples_ms": [1000 * second for second in samples],
        "rounds": [len(turn["seconds"]) for turn in turns],
        "error": None,
    }
    row["warnings"] = _unstable(row, all(turn["warm"] for turn in turns))
    row["stable"] = not row["warnings"]
    if setting.threads > opened["usable_threads"]:
        row["warnings"].append(f"{setting.threads} threads on {opened['usable_threads']} processors")
    if row["images_per_second_wall"] < (1 - STALLS) * photos_per_second:
        row["warnings"].append(f"stalls: {row['images_per_second_wall']:.1f} images/s over the whole time")
    return row


def add_checks(row: Row, seconds: dict[str, list[float]]) -> None:
    """Compare calls with other inputs with usual ones, and warn where an interval is beyond the limit."""
    row["checks"] = {}
    words = {"same": "with one and the same input", "zeros": "with zeros", "tiny": "with denormal numbers"}
    for kind, limit in CHECKS.items():
        ratio, (low, high) = statistics.paired_ratio([[s] for s in seconds["fresh"]], [[s] for s in seconds[kind]])
        row["checks"][kind] = {"time_ratio": ratio, "interval": [low, high]}
        if len(seconds[kind]) >= _ENOUGH and (low > 1 + limit or high < 1 - limit):
            row["warnings"].append(f"a call takes {ratio:.2f} times as long {words[kind]}")


def add_ceiling(row: Row, ceiling: Values) -> None:
    """Shares of what the device reaches at best."""
    row["ceiling_flops"], row["ceiling_by"] = ceiling["flops"], ceiling["by"]
    row["ceiling_bytes_per_second"] = ceiling["copy"]
    share = row["share_of_ceiling"] = _share(row["achieved_flops"], ceiling["flops"])
    row["ceiling_disturbed"] = bool(ceiling["disturbed"]) or (share or 0) > 1
    row["share_of_copy"] = _share(row["achieved_bytes_per_second"], ceiling["copy"])


def _share(part: float | None, total: float | None) -> float | None:
    return part / total if part and total else None


def _head(setting: Setting, opened: Values) -> Row:
    size = opened.get("image_size") or ([setting.size] * 2 if setting.size else None)
    return {
        "model": setting.model,
        "architecture": opened.get("architecture"),
        "weights_sha256": opened.get("weights_sha256"),
        "mode": setting.mode,
        "peer": setting.peer,
        "engine": opened.get("engine") or setting.peer or setting.engine,
        "device": opened.get("device", setting.device),
        "provider": opened.get("provider"),
        "dtype": opened.get("dtype", setting.dtype),
        "layout": opened.get("layout") or setting.layout,
        "compiled": setting.compiled or "+compile" in (setting.peer or ""),
        "threads": setting.threads,
        "batch_size": setting.batch_size,
        "image_size": size,
        "macs": opened.get("macs"),
        "wanted": {name: getattr(setting, name) for name in ("engine", "device", "dtype", "size")},
        "warnings": [],
    }


def _unstable(row: Row, warm: bool) -> list[str]:
    causes = []
    if (width := statistics.spread(row["images_per_second_interval"], row["images_per_second"])) > UNSTABLE:
        causes.append(f"unstable: ±{width:.0%} over repeats")
    if not warm:
        causes.append("unstable: still warming up")
    if abs(row["drift"]) > DRIFT:
        causes.append(f"unstable: drifted by {row['drift']:+.0%} from the first third to the last")
    if row["recompilations"]:
        causes.append(f"unstable: {row['recompilations']} recompilations while it was measured")
    if row["garbage_collections"]:
        causes.append("unstable: garbage was collected meanwhile")
    return causes
