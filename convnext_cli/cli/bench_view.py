"""What ``convnext bench`` shows on a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convnext_cli.cli import render

if TYPE_CHECKING:
    from rich.text import Text

    from convnext_cli.base.text import JsonObject
    from convnext_cli.benchmarking.compare import Ratio

_SETTINGS = ("model", "engine", "device", "dtype", "layout", "compiled", "threads", "size", "batch")
_FIGURES = ("images/s", "p50 ms", "p90", "p99", "start s", "MiB", "GFLOP/s", "ceiling")
# What goes first where the screen is narrow; the names of settings and images/s always stay.
_DISPENSABLE = ("p90", "start s", "GFLOP/s", "MiB", "p99", "ceiling")


def draw(document: JsonObject, ratios: Sequence[Ratio], gate: Sequence[Ratio], *, verbose: int = 0) -> None:
    """The table on standard output, under it what its figures are held against; warnings on standard error."""
    rows, console = document["rows"], render.out()
    names = _told_apart(rows)
    console.print(_machine(document), soft_wrap=True)
    _print_table(rows, names)
    for line in _legend(document, names):
        console.print(line, style="dim", soft_wrap=True)
    for way in document.get("whole_way", ()):
        _print_whole_way(way)
    if ratios:
        _print_ratios("times as fast, taking turns", ratios)
    if gate:
        _print_ratios("times as fast as in the older run", gate)
    for batch in document.get("batches", ()):
        limit = f" ({batch['limit']})" if batch["limit"] else ""
        console.print(f"best batch {batch['best']}, largest that fits {batch['largest']}{limit}", soft_wrap=True)
    for winner in document.get("winners", ()):
        console.print(f"[bold green]{winner['what']}[/]\n  {render.clean(winner['command'])}", soft_wrap=True)
    _warn(rows, verbose)


def _machine(document: JsonObject) -> str:
    environment = document["environment"]
    gpus = "".join(f", {gpu['name']}" for gpu in environment["gpus"])
    n = environment["usable_threads"]
    return f"[dim]{render.clean(environment['processor'])}{render.clean(gpus)}, {n} thread{'s' * (n != 1)}[/]"


def _setting(row: JsonObject) -> dict[str, str]:
    """The settings of a row as words."""
    size = row["image_size"] or ["?", "?"]
    return {
        "model": render.plain(row["model"]),
        "engine": row["peer"] or row["engine"],
        "device": row["device"],
        "dtype": row["dtype"],
        "layout": row["layout"] or "",
        "compiled": "compiled" if row["compiled"] and "+compile" not in (row["peer"] or "") else "",
        "threads": str(row["threads"]),
        "size": str(size[0]) if size[0] == size[1] else f"{size[1]}×{size[0]}",
        "batch": str(row["batch_size"]),
    }


def _told_apart(rows: Sequence[JsonObject]) -> list[str]:
    """The settings that are not the same everywhere, and the batch."""
    words = [_setting(row) for row in rows]
    # not every engine says a layout; one that is the same wherever it is said tells nothing apart
    several = {n for n in _SETTINGS if len({w[n] for w in words if w[n] or n != "layout"}) > 1}
    return [n for n in _SETTINGS if n == "batch" or n in several]


def _figures(row: JsonObject) -> dict[str, str]:
    if row["error"]:
        return {}
    low, high = row["images_per_second_interval"]
    share = row["share_of_ceiling"]
    return {
        "images/s": f"{_short(row['images_per_second'])} ±{(high - low) / 2 / row['images_per_second']:.0%}",
        "p50 ms": _short(row["latency_p50_ms"]),
        "p90": _short(row["latency_p90_ms"]),
        "p99": _short(row["latency_p99_ms"]),
        "start s": f"{row['load_s'] + row['first_call_s']:.2f}",
        "MiB": f"{row['peak_memory_bytes'] / 2**20:.0f}",
        "GFLOP/s": _short(row["achieved_flops"] / 1e9) if row["achieved_flops"] else "-",
        "ceiling": "-" if share is None else f"{share:.0%}" + ("?" if row["ceiling_disturbed"] else ""),
    }


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.1f}"


def _print_table(rows: Sequence[JsonObject], names: Sequence[str]) -> None:
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    console, left_out = render.out(), list[str]()
    while True:
        figures = [name for name in _FIGURES if name not in left_out]
        table = Table(box=box.ROUNDED, header_style="bold")
        for name in names:
            table.add_column(name, justify="right" if name in ("threads", "size", "batch") else "left", no_wrap=True)
        for name in figures:
            table.add_column(name, justify="right", no_wrap=True)
        best = max((row["images_per_second"] or 0 for row in rows), default=0)
        for row in rows:
            words, values = _setting(row), _figures(row)
            cells: list[str | Text] = [Text(words[name]) for name in names]
            if row["error"]:
                cells.append(Text(row["error"]["kind"].replace("_", " "), "red"))
            else:
                uneasy = not row["stable"] or row["disturbed"]
                style = "yellow" if uneasy else "bold green" if row["images_per_second"] == best else ""
                cells.append(Text(values["images/s"] + ("!" if uneasy else ""), style))
                cells += [values[name] for name in figures[1:]]
            table.add_row(*cells)
        width = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        if width <= console.width or len(left_out) == len(_DISPENSABLE):
            break
        left_out.append(_DISPENSABLE[len(left_out)])
    console.print(table, crop=False)
    if left_out:
        console.print(f"no room here for {', '.join(left_out)}; --json has them", style="dim", soft_wrap=True)


def _legend(document: JsonObject, names: Sequence[str]) -> list[str]:
    """What is the same in all rows, the work of a photo, what the ceilings are, and how right the answers were."""
    rows = [row for row in document["rows"] if not row["error"]]
    if not rows:
        return []
    words = _setting(rows[0])
    units = {"threads": "{} threads", "size": "{} px"}
    same = [units.get(n, "{}").format(words[n]) for n in _SETTINGS if n not in names and words[n]]
    work = {(row["model"], row["macs"]) for row in rows}
    if len(work) == 1 and rows[0]["macs"]:
        macs = rows[0]["macs"]
        same.append(f"{macs / 1e9:.2f} GMAC = {2 * macs / 1e9:.2f} GFLOP a photo")
    lines = [" · ".join(map(render.clean, same))]
    for ceiling in document["ceilings"]:
        by = f"{ceiling['flops'] / 1e9:.0f} GFLOP/s ({ceiling['by']})" if ceiling["flops"] else "not measured"
        lines.append(f"ceiling in {ceiling['dtype']}: {by}; copy {ceiling['copy'] / 1e9:.0f} GB/s")
        if ceiling["disturbed"]:
            lines[-1] += "; disturbed, so it may be higher, and the shares lower"
    offs = [row["max_logit_difference"] for row in rows if row["max_logit_difference"] is not None]
    if offs:
        lines.append(f"logits at most {max(offs):.0e} of their range from the reference network in float32")
    if any(row["error"] is None and (not row["stable"] or row["disturbed"]) for row in rows):
        lines.append("! not stable or disturbed: see the warnings")
    return lines


def _print_whole_way(way: JsonObject) -> None:
    from rich import box
    from rich.table import Table

    console = render.out()
    if way.get("error"):
        console.print(f"[red]{render.clean(way['error']['message'])}[/]", soft_wrap=True)
        return
    table = Table(box=box.ROUNDED, header_style="bold")
    for name in (*way["stages_s"], "all"):
        table.add_column(f"{name} ms", justify="right", no_wrap=True)
    table.add_row(*(f"{1000 * s:.2f}" for s in (*way["stages_s"].values(), way["alone_s"])))
    console.print(
        f"photo → label: [bold]{_short(way['images_per_second'])} images/s[/] with {way['workers']} decoding threads, "
        f"batches of {way['batch_size']}; first run {_short(way['first_run_images_per_second'])}; "
        f"{way['photos']} photos, {way['failed']} failed",
        soft_wrap=True,
    )
    console.print("one photo, stage after stage", soft_wrap=True)
    console.print(table)
    for text in way["warnings"]:
        render.note(f"warning: {text}")


def _print_ratios(title: str, ratios: Sequence[Ratio]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = _told_apart([r for ratio in ratios for r in (ratio.row, ratio.other)])
    table = Table(box=box.ROUNDED, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    for ratio in ratios:
        ours, theirs = _setting(ratio.row), _setting(ratio.other)
        cells = [Text(ours[n] if ours[n] == theirs[n] else f"{ours[n]} / {theirs[n]}") for n in names]
        if ratio.ratio is None:
            table.add_row(*cells, Text("-"), Text(ratio.problem, "red"))
            continue
        colour = "" if not ratio.certain else "green" if ratio.ratio > 1 else "red"
        interval = f"{ratio.interval[0]:.2f} to {ratio.interval[1]:.2f}" if ratio.interval else "unknown"
        table.add_row(*cells, Text(f"{ratio.ratio:.2f}", colour), interval)
    render.out().print(title, soft_wrap=True)
    render.out().print(table)


def _warn(rows: Sequence[JsonObject], verbose: int) -> None:
    """Failures, then each warning once with the rows that it is about, on standard error."""
    names = _told_apart(rows)
    about: dict[str, list[str]] = {}
    for row in rows:
        words = _setting(row)
        name = ", ".join(f"batch {words[n]}" if n == "batch" else words[n] for n in names if words[n])
        if row["error"]:
            render.note(f"{row['error']['kind'].replace('_', ' ')}: {name}: {row['error']['message']}")
            continue
        for text in row["warnings"]:
            about.setdefault(text, []).append(name)
        if verbose:
            render.note(_told(name, row))
    for text, which in about.items():
        render.note(f"warning: {text} ({'all' if len(which) == len(rows) > 1 else '; '.join(which)})")


def _told(name: str, row: JsonObject) -> str:
    kinds = "; ".join(f"{kind} {check['time_ratio']:.2f}" for kind, check in row.get("checks", {}).items())
    memory = "".join(
        f", {k.removeprefix('gpu_').removesuffix('_bytes')} {v / 2**20:.0f} MiB on the GPU"
        for k, v in row["memory"].items()
        if k.startswith("gpu_")
    )
    return (
        f"{name}: {row['provider'] or row['device']}, load {row['load_s']:.2f} s, "
        f"first call {row['first_call_s']:.2f} s, warm-up {row['warmup_s']:.1f} s, {len(row['samples_ms'])} samples "
        f"over {row['inputs']} inputs, slowest {row['latency_max_ms']:.1f} ms{memory}; "
        f"time with other inputs: {kinds or 'not tried'}"
    )
