"""``convnext doctor``: installed libraries, usable devices, and whether the answers are correct."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from convnext_cli.cli import render

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from convnext_cli.base.text import JsonObject
    from convnext_cli.diagnosis import Check, Diagnosis, EngineReport
    from convnext_cli.diagnosis.installed import Folders, Library, ThisMachine

_COLOURS = {"ok": "green", "wrong": "bold red", "failed": "bold red", "skipped": "dim"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(as_json: bool) -> int:
    """Check this installation: engines, devices, libraries, folders.

    Runs a reference input through the bundled model in each engine, on each device and in each precision, and compares
    the answers with those of the network in float64. The exit status is 1 if an answer is wrong or an installed engine
    fails; missing optional libraries are not a failure.

    \b
    Examples:
      convnext doctor
      convnext doctor --json | jq '.problems'
    """
    from convnext_cli.diagnosis import diagnose

    if as_json:
        diagnosis = diagnose()
        click.echo(json.dumps(diagnosis.to_json(), indent=2))
    else:
        with render.err().status("checking", spinner="dots") as status:
            diagnosis = diagnose(lambda engine: status.update(f"trying {engine}"))
        draw(diagnosis)
    return 0 if diagnosis.healthy else 1


def draw(diagnosis: Diagnosis) -> None:
    """Print all sections, the problems last."""
    _section("This machine", _facts(_machine(diagnosis.machine)))
    _section("Engines", _facts(_engines(diagnosis.engines)))
    _section("Answers to the reference input", _checks(diagnosis.checks))
    _section("Libraries", _facts(_libraries(diagnosis.libraries)))
    _section("Folders", _facts(_folders(diagnosis.folders)))
    _problems(diagnosis)


def _section(title: str, table: Table) -> None:
    from rich.padding import Padding

    console = render.out()
    console.print(f"[bold]{title}[/]")
    console.print(Padding(table, (0, 0, 1, 2), expand=False))


def _facts(lines: Iterator[tuple[str, str | Text]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=14)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(render.clean(name), Text(render.plain(value)) if isinstance(value, str) else value)
    return table


def _machine(m: ThisMachine) -> Iterator[tuple[str, str]]:
    yield "convnext", f"{m['convnext']} with Python {m['python']} ({m['executable']})"
    yield "platform", m["platform"]
    yield "processor", m["processor"]
    yield "instructions", " ".join(m["instruction_sets"]) or "not reported by the system"
    why = f"; the container allows {min(m['quotas'])}" if m["quotas"] else ""
    yield "threads", f"{m['usable_threads']} of {m['processors']} processors{why}"


def _engines(engines: list[EngineReport]) -> Iterator[tuple[str, str | Text]]:
    from rich.text import Text

    for engine in engines:
        if not engine.installed:
            yield engine.name, Text(f"not installed: {engine.install}", "dim")
            continue
        if engine.error:
            yield (
                engine.name,
                Text(f"{engine.version or ''} does not run: {render.plain(engine.error)}", "red"),
            )
        else:
            version = (str(engine.version), "bold")
            yield engine.name, Text.assemble(version, f"  {'; '.join(_facts_of(engine.facts))}")
        for device in engine.devices:
            if details := "; ".join(_device(device)):
                yield f"  {device['name']}", details


def _facts_of(facts: JsonObject) -> Iterator[str]:
    if "built_for" in facts:
        yield f"built for {facts['built_for']}"
        if facts["driver"]:
            yield facts["driver"]
        if facts["built_for"] != "CPU" and facts["why_no_cuda"]:
            yield "no GPU" if facts["driver"] else "no GPU driver is loaded"
        yield "--compile works" if facts["compiler"] else "no C++ compiler for --compile"
    if "precision_by_itself" in facts:
        honoured = "float32 is honoured" if facts["float32_honoured"] else "float32 is not honoured"
        yield f"{honoured}; the default is {facts['precision_by_itself']}"
    if "providers" in facts:
        yield ", ".join(name.removesuffix("ExecutionProvider") for name in facts["providers"])


def _device(device: JsonObject) -> Iterator[str]:
    if device["description"]:
        yield render.plain(device["description"])
    if device.get("memory_bytes"):
        yield f"{device['memory_bytes'] / 2**30:.0f} GiB"
    if "capability" in device:
        yield f"capability {device['capability']}" + (
            "" if device["has_kernels"] else ", for which this torch has no code"
        )
    if device.get("capabilities"):
        yield " ".join(device["capabilities"])


def _checks(checks: list[Check]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("engine", "device", "dtype"):
        table.add_column(title, no_wrap=True)
    table.add_column("off by", justify="right", no_wrap=True)
    table.add_column("top-1", no_wrap=True)
    table.add_column("", overflow="fold")
    for check in checks:
        text = check.verdict + (f": {render.plain(check.reason)}" if check.reason else "")
        table.add_row(
            *(check.engine, check.device, check.dtype),
            "" if check.difference is None else f"{check.difference:.0e}",
            "" if check.top1_equal is None else "same" if check.top1_equal else "different",
            Text(text, _COLOURS[check.verdict]),
        )
    return table


def _libraries(libraries: list[Library]) -> Iterator[tuple[str, str | Text]]:
    from rich.text import Text

    from convnext_cli.photos import pillow_check

    for library in libraries:
        if library.version:
            purpose = library.purpose
            if library.name == "pillow":
                purpose += ", resizes exactly" if pillow_check.resizes_exactly() else ", does not resize exactly"
            yield library.name, Text.assemble(library.version, (f"  {purpose}", "dim"))
        else:
            yield library.name, Text(f"not installed, for {library.purpose}: {library.install}", "dim")


def _folders(folders: Folders) -> Iterator[tuple[str, str]]:
    yield "default model", f"{folders.default_model or '?'} ({folders.default_model_path or 'unusable'})"
    count = len(folders.models)
    yield "weights", f"{folders.weights} ({count} {'model' if count == 1 else 'models'})"
    engines = f"{folders.prepared} prepared {'engine' if folders.prepared == 1 else 'engines'}"
    yield "cache", f"{folders.cache} ({engines}, {folders.cache_bytes / 1e6:.0f} MB)"
    yield "settings", folders.config
    for path in folders.hub_caches:
        yield "also looked in", path


def _problems(diagnosis: Diagnosis) -> None:
    console = render.out()
    if not diagnosis.problems:
        console.print("[bold green]No problems found.[/]")
        return
    ok = "" if not diagnosis.healthy else "Everything that is installed works."
    for problem in diagnosis.problems:
        colour, word = ("red", "problem") if problem.fails else ("yellow", "note")
        console.print(f"[bold {colour}]{word}:[/] {render.clean(problem.what)}", soft_wrap=True)
        console.print(f"  [cyan]hint:[/] {render.clean(problem.hint)}", soft_wrap=True)
    if ok:
        console.print(f"[bold green]{ok}[/]")
