"""Sweep: many settings from lists of values, the best batch, and the winner as a command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from convnext_cli.benchmarking.row import Row
from convnext_cli.benchmarking.runs import Bench
from convnext_cli.benchmarking.setting import Setting

GAIN = 1.02  # a batch is better when it is this much faster
PATIENCE = 2  # doublings without a gain after which the best is known
PROBE = 0.0  # seconds: one look at whether a batch fits
SLOW = 10_000  # ms; a batch that takes longer is not doubled to see whether more fits
SLOW_CPU = 2_000  # the same on a processor, whose memory no one fills with photos


def settings(base: Sequence[Setting], values: Mapping[str, Sequence[object]]) -> list[Setting]:
    """Every combination of the values of fields, for each of the bases (models).

    Where several engines are tried, those that are not torch have no layout and are not compiled.
    """
    combinations = []
    for model, combination in product(base, product(*values.values())):
        setting = model.replace(**dict(zip(values, combination, strict=True)))
        if setting.engine not in ("auto", "torch") and len(values.get("engine", ())) > 1:
            setting = setting.replace(layout=None, compiled=False)
        combinations.append(setting)
    return list(dict.fromkeys(combinations))


@dataclass
class Batches:
    """What ``--batch-size auto`` found. largest: that fits, as far as it was tried; limit: why no more was tried."""

    setting: Setting
    best: int | None = None
    largest: int | None = None
    limit: str = ""

    def to_dict(self) -> dict[str, object]:
        return {
            "setting": self.setting.to_dict(),
            "best": self.best,
            "largest": self.largest,
            "limit": self.limit,
        }


def batches(bench: Bench, setting: Setting) -> Iterator[Row | Batches]:
    """Rows for batches of 1, 2, 4 … as long as it pays, then whether larger ones fit; last the ``Batches``.

    Every batch is a row under its own size; one that did not fit is a row too.
    """
    result = Batches(setting)
    speed, without_gain, size = 0.0, 0, 1
    while True:
        alone = without_gain <= PATIENCE
        row = _one(bench, setting.replace(batch_size=size), probe=not alone)
        if row["error"]:
            row["probed"] = row["error"]["kind"] == "out_of_memory" and result.largest is not None
            result.limit = row["error"]["message"]
            if row["error"]["kind"] != "out_of_memory" or size == 1 or result.largest is None:
                yield row
                break
            yield row
            result.largest = _between(bench, setting, result.largest, size)
            break
        result.largest = size
        if alone:
            yield row
            if row["images_per_second"] > GAIN * speed:
                speed, result.best, without_gain = row["images_per_second"], size, 0
            else:
                without_gain += 1
        if row["latency_p50_ms"] > (SLOW_CPU if row["device"] == "cpu" and not alone else SLOW):
            result.limit = f"larger ones were not tried: this one takes {row['latency_p50_ms'] / 1000:.0f} s"
            break
        size *= 2
    yield result


def _between(bench: Bench, setting: Setting, fits: int, too_large: int) -> int:
    """The largest batch that fits, to an eighth of it."""
    step = max(1, fits // 8)
    while too_large - fits > step:
        middle = (fits + too_large) // 2
        row = _one(bench, setting.replace(batch_size=middle), probe=True)
        fits, too_large = (middle, too_large) if row["error"] is None else (fits, middle)
    return fits


def _one(bench: Bench, setting: Setting, *, probe: bool) -> Row:
    before = bench.seconds, bench.checks
    if probe:
        bench.seconds, bench.checks = PROBE, False
    try:
        bench.say(setting.describe() + (" (does it fit?)" if probe else ""))
        return bench.interleaved([setting], rounds=1)[0]
    finally:
        bench.seconds, bench.checks = before


def winners(rows: Sequence[tuple[Setting, Row]]) -> list[tuple[str, str]]:
    """For each model, what is best and the command that does it: the most photos a second, and the soonest answer."""
    lines = []
    for model in dict.fromkeys(setting.model for setting, _ in rows):
        good = [
            (s, r)
            for s, r in rows
            if s.model == model
            and not r["error"]
            and s.peer is None
            and s.mode == "forward"
            and s.layout != "contiguous"
        ]
        if not good:
            continue
        setting, row = max(good, key=lambda pair: pair[1]["images_per_second"])
        lines.append((f"most photos a second ({row['images_per_second']:.1f})", command(setting, "-r FOLDER")))
        single = [pair for pair in good if pair[0].batch_size == 1]
        if single:
            first, row = min(single, key=lambda pair: pair[1]["latency_p50_ms"])
            if first != setting:
                lines.append((f"soonest answer ({row['latency_p50_ms']:.1f} ms)", command(first, "PHOTO")))
    return lines


def command(setting: Setting, photos: str) -> str:
    """The line that classifies with a setting; of weights drawn at random, the one that measures it again."""
    drawn = setting.home is not None
    words = ["convnext", *(["bench", "--random"] if drawn else ["classify"])]
    if setting.model != "default":
        words += ["-m", setting.model]
    words += ["-e", setting.engine] if setting.engine != "auto" else []
    words += ["-d", setting.device] if setting.device != "auto" else []
    words += ["--dtype", setting.dtype] if setting.dtype != "float32" else []
    words += ["--compile"] if setting.compiled else []
    words += ["--size", str(setting.size)] if setting.size else []
    words += ["-b", str(setting.batch_size), "-t", str(setting.threads)]
    return shlex.join(words) if drawn else f"{shlex.join(words)} {photos}"
