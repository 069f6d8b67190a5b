"""Compare: ratios of speed, with what they are uncertain by. Above 1 the first is faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.base.text import JsonObject, json_value
from convnext_cli.benchmarking import statistics
from convnext_cli.benchmarking.row import Row
from convnext_cli.benchmarking.setting import Setting

# What makes two rows the same setting.
_SAME = ("model", "mode", "peer", "device", "dtype", "layout", "compiled", "threads", "batch_size", "image_size")


@dataclass(frozen=True)
class Ratio:
    """How many times as fast ``row`` is as ``other``. interval: of 95 %, None where a side has no samples.

    order: for two that took turns, the ratio where ``row`` came first and where it came last. problem: why there is no
    ratio.
    """

    row: Row
    other: Row
    ratio: float | None
    interval: statistics.Interval | None = None
    order: tuple[float, float] | None = None
    problem: str = ""

    @property
    def certain(self) -> bool:
        """Whether the interval leaves 1 out, and the order of turns makes no other winner."""
        if self.interval is None or self.interval[0] <= 1 <= self.interval[1]:
            return False
        return self.order is None or (self.order[0] > 1) == (self.order[1] > 1)

    def to_dict(self) -> dict[str, object]:
        names = ("model", "engine", "peer", "dtype", "batch_size", "image_size")
        return {
            "of": {name: self.row[name] for name in names},
            "to": {name: self.other[name] for name in names},
            "ratio": self.ratio,
            "interval": list(self.interval) if self.interval else None,
            "by_order": list(self.order) if self.order else None,
            "certain": self.certain,
            "problem": self.problem,
        }


def interleaved(rows: Sequence[Row]) -> list[Ratio]:
    """The first row against each of the others, which took turns with it."""
    return [_in_turns(rows[0], other) for other in rows[1:]]


def may_match(setting: Setting, old: Sequence[Row]) -> bool:
    """Whether an older run may have a row of a setting that is not measured yet."""
    known = {name: getattr(setting, name) for name in ("model", "mode", "peer", "compiled", "threads", "batch_size")}
    return any(all(row.get(name) == value for name, value in known.items()) for row in old)


def with_old(rows: Sequence[Row], old: Sequence[Row]) -> list[Ratio]:
    """Each row against the one of the same setting in an older run. A row without an older one is left out."""
    ratios = []
    for row in rows:
        asked = row.get("wanted", {}).get("engine")
        alike = [o for o in old if all(o.get(name) == row.get(name) for name in _SAME)]
        # "auto" may have become another engine since; that is part of the comparison
        alike = [o for o in alike if o.get("wanted", {}).get("engine", o.get("engine")) in (asked, row["engine"])]
        if alike:
            ratios.append(_apart(row, alike[0]))
    return ratios


def read(path: Path) -> JsonObject:
    """An older run, as ``bench --json`` wrote it. Raises UsageError when it is none."""
    hint = "name a file that `convnext bench --json` wrote"
    try:
        document = json_value(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint) from None
    except ValueError:
        raise UsageError(f"{path} is not JSON", hint) from None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "images_per_second" in r for r in rows):
        raise UsageError(f"{path} holds no rows of a bench", hint)
    return dict(document)


def _in_turns(row: Row, other: Row) -> Ratio:
    if problem := _problem(row, other):
        return Ratio(row, other, None, problem=problem)
    ours, theirs = _rounds(row), _rounds(other)
    ratio, interval = statistics.paired_ratio(_per_photo(ours, row), _per_photo(theirs, other))
    order = None
    if len(ours) > 1:
        first, last = (
            statistics.paired_ratio(_per_photo(ours[i::2], row), _per_photo(theirs[i::2], other))[0] for i in (0, 1)
        )
        order = first, last
    return Ratio(row, other, ratio, interval, order)


def _apart(row: Row, other: Row) -> Ratio:
    if problem := _problem(row, other):
        return Ratio(row, other, None, problem=problem)
    if not other.get("samples_ms"):
        return Ratio(row, other, row["images_per_second"] / other["images_per_second"])
    ours, theirs = statistics.repeats(row["samples_ms"]), statistics.repeats(other["samples_ms"])
    return Ratio(row, other, *statistics.ratio(_per_photo(ours, row), _per_photo(theirs, other)))


def _problem(row: Row, other: Row) -> str:
    for name, side in (("this run", row), ("the other", other)):
        if not side.get("images_per_second"):
            return f"{name} has no speed: {(side.get('error') or {}).get('message', 'it failed')}"
    return ""


def _rounds(row: Row) -> list[list[float]]:
    rounds, at = [], 0
    for count in row["rounds"]:
        rounds.append(row["samples_ms"][at : at + count])
        at += count
    return rounds


def _per_photo(groups: list[list[float]], row: Row) -> list[list[float]]:
    return [[sample / row["batch_size"] for sample in group] for group in groups]
