"""Plot: latency against throughput over batch sizes, one line for each way of running a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from convnext_cli.base.errors import OutputError, UnavailableError, UsageError
from convnext_cli.benchmarking.row import Row

SUFFIXES = (".png", ".svg")
_TOLD = ("model", "device", "dtype", "layout", "threads", "image_size", "mode")


def check(path: Path) -> None:
    """Say before anything is measured that the picture cannot be drawn. Raises UsageError, UnavailableError."""
    from importlib.util import find_spec

    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path.name} is neither a png nor an svg", "name it out.png or out.svg")
    if find_spec("matplotlib") is None:
        raise UnavailableError("matplotlib is not installed", "pip install matplotlib")


def draw(rows: Sequence[Row], path: Path, title: str = "") -> None:
    """Write the picture; batch sizes stand beside the points, whiskers are intervals. title: of the machine; what all
    rows share goes above it. Raises OutputError."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if not row["error"]:
            lines.setdefault(_name(row, rows), []).append(row)
    markers = "osD^vP*X"
    for i, (name, points) in enumerate(lines.items()):
        points.sort(key=lambda row: row["batch_size"])
        x = [row["latency_p50_ms"] for row in points]
        y = [row["images_per_second"] for row in points]
        ends = [row["images_per_second_interval"] for row in points]
        whiskers = [[max(0.0, v - low) for v, (low, _) in zip(y, ends, strict=True)]]
        whiskers.append([max(0.0, high - v) for v, (_, high) in zip(y, ends, strict=True)])
        axes.errorbar(x, y, yerr=whiskers, marker=markers[i % len(markers)], capsize=3, label=name)
        for row, a, b in zip(points, x, y, strict=True):
            axes.annotate(
                str(row["batch_size"]), (a, b), textcoords="offset points", xytext=(7, 7), ha="left", fontsize=8
            )
    spans = [row["latency_p50_ms"] for points in lines.values() for row in points]
    if spans and max(spans) > 4 * min(spans):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.08, y=0.15)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("milliseconds a batch (median); beside the points: photos in a batch")
    axes.set_ylabel("photos a second")
    axes.set_title("\n".join(filter(None, (_shared(rows), title))), fontsize=10)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=8)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", "name another place") from error
    finally:
        plt.close(figure)


def _name(row: Row, rows: Sequence[Row]) -> str:
    """What tells a line from the others."""
    parts = [row["peer"] or row["engine"] + (" compiled" if row["compiled"] else "")]
    parts += [_said(name, row) for name in _TOLD if len(_values(name, rows)) > 1]
    return ", ".join(part for part in parts if part != "None")  # an engine that says no layout


def _shared(rows: Sequence[Row]) -> str:
    """What all lines have in common."""
    alike = [name for name in _TOLD if name not in ("layout", "mode") and len(_values(name, rows)) == 1]
    good = next((row for row in rows if not row["error"]), None)
    return "" if good is None else ", ".join(_said(name, good) for name in alike)


def _values(name: str, rows: Sequence[Row]) -> set[str]:
    return {str(row[name]) for row in rows if not row["error"] and row[name]}


def _said(name: str, row: Row) -> str:
    value = row[name]
    return f"{value[1]} px" if name == "image_size" else f"{value} threads" if name == "threads" else str(value)
