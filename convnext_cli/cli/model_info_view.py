"""The text of ``convnext models info``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from convnext_cli.cli import render

if TYPE_CHECKING:
    from convnext_cli.cli.model_facts import ModelFacts


def draw(facts: ModelFacts) -> None:
    """Print the details of a model as text."""
    from rich.text import Text

    lines = [(render.plain(title), render.plain(text)) for title, text in _lines(facts)]
    width = max(len(title) for title, _ in lines)
    for title, text in lines:
        line = Text.assemble((f"{title:{width}}  ", "dim"), (text, "bold" if title == "name" else ""))
        render.out().print(line, soft_wrap=True)
    for warning in facts.get("warnings", ()):
        render.note(f"note: {warning}")


def _lines(facts: ModelFacts) -> Iterator[tuple[str, str]]:
    steps, config = facts["recipe"], facts["config"]
    yield "name", facts["name"]
    yield (
        "architecture",
        (
            f"{facts['architecture'] or 'not a named variant'}: depths {_dashed(config['depths'])}, "
            f"widths {_dashed(config['hidden_sizes'])}, patch {config['patch_size']}"
        ),
    )
    yield "size", f"{(facts['params'] or 0) / 1e6:.2f} M parameters, {facts['gmacs']:.2f} GMACs at {steps['size'][0]}"
    heads = {"classification": "classes", "embedding": "numbers (an embedding)"}
    yield (
        "head",
        (
            f"{facts['classes']} {heads[facts['task']]}" + (f", {facts['labels']}" if facts["labels"] else "")
            if facts["task"] in heads
            else "none: feature maps"
        ),
    )
    fit = steps["resize"] if steps["resize"] != "squash" else "squash (aspect ratio lost)"
    yield (
        "input",
        (
            f"{_by(steps['size'])} from {fit} {_by(steps['resize_to'])}, {steps['interpolation']}"
            + (f"; --size test: {_by(steps['test_size'])}" if steps["test_size"] else "")
        ),
    )
    yield "mean, std", f"{_spaced(steps['mean'])}, {_spaced(steps['std'])}"
    for name, value in facts["metrics"].items():
        yield name, f"{value:g}"
    yield (
        "licence",
        (facts["license"] or "not stated")
        + (f" ({facts['terms']})" if facts.get("terms") not in ("", None, facts["license"]) else ""),
    )
    if facts["source"]:
        yield "source", facts["source"]
    if facts["aliases"]:
        yield "also called", ", ".join(facts["aliases"])
    if facts.get("pull"):
        yield "where", f"not on this machine: {facts['pull']}"
        return
    statistics = facts["statistics"]
    yield "file", f"{facts['path']} ({(facts['size'] or 0) / 1e6:.1f} MB)"
    for copy in facts["copies"]:
        if copy != facts["path"]:
            yield "copy", copy
    yield "layout", facts["layout"]
    if export := facts.get("export"):
        size = _by(export["size"]) if export["size"] else "any size"
        what = "photos of any one size" if export["photos"] else f"tensors of {size}"
        yield "takes", f"{what}, {export['batch'] or 'any number'} a call"
        yield "gives", export["output"] + (", features" if export["features"] else "")
        yield "made with", ", ".join(f"{name} {version}" for name, version in export["made_with"].items())
    if facts["file_sha256"]:
        yield "file sha256", facts["file_sha256"]
    yield "tensors' sha256", facts["sha256"]
    if facts["temperature"]:
        yield "temperature", f"{facts['temperature']:g}"
    calibration = facts["calibration"]
    yield "calibrated", "no" if calibration is None else f"on {calibration['photos']:,} photos"
    if statistics is None:
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in statistics["dtypes"].items())
    yield "tensors", f"{statistics['tensors']}: {kinds}"
    scale = statistics["layer_scale"]
    yield "largest value", f"{statistics['largest']:.4g}" + (f"; mean layer scale {scale:.3g}" if scale else "")


def _dashed(values: list[int]) -> str:
    return "-".join(map(str, values))


def _by(values: list[int]) -> str:
    return "×".join(map(str, values))


def _spaced(values: list[float]) -> str:
    return " ".join(f"{v:g}" for v in values)
