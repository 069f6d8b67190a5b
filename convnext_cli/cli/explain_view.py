"""What a person sees of ``explain``: maps, files, failures, and the summary."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from convnext_cli.base.text import is_well_formed
from convnext_cli.cli import classify_view, counts, render

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convnext_cli.explanation.explain import Explaining
    from convnext_cli.explanation.maps import Explanation


def show(explaining: Explaining, *, drawn: bool, as_json: bool, quiet: bool) -> None:
    """Print each explanation as soon as it is there, and report the failures at the end.

    Args:
        explaining: the explanations to come.
        drawn: draw the maps; without ``as_json`` the files that were written are printed otherwise.
        as_json: print JSON lines.
        quiet: whether ``-q`` was given.
    """
    failures = classify_view.Failures()
    for explanation in explaining.explanations:
        failures.note(explanation.row)
        if as_json:
            _print_json(explanation)
        elif drawn:
            _draw(explanation)
        else:
            for guess in explanation.maps:
                render.echo(f"{guess.file}\t{guess.prediction.label}\t{guess.prediction.score:.4f}")
        sys.stdout.flush()
    failures.report(explaining.predictor.times.photos, quiet=quiet)


def _print_json(explanation: Explanation) -> None:
    values = explanation.to_dict()
    line = json.dumps(values, ensure_ascii="path_bytes" in values or not is_well_formed(explanation.row.path))
    render.echo(line)


def _draw(explanation: Explanation) -> None:
    """The photo and its maps, side by side, as many in a line as the screen is wide."""
    from rich.table import Table
    from rich.text import Text

    from convnext_cli.explanation import picture

    row, console = explanation.row, render.out()
    render.print_row_title(row)
    if row.thumbnail is None or not explanation.maps:
        return
    width = render.THUMBNAIL_WIDTH
    small = row.thumbnail.resize(render.picture_size(row.thumbnail))
    framed = small.copy()
    picture.draw_frame(framed, explanation, line=1)
    tiles: list[tuple[RenderableType, Text]] = [(render.picture(framed), Text("the photo", "dim"))]
    for guess in explanation.maps:
        prediction = guess.prediction
        label = Text(f"{prediction.rank} {render.plain(prediction.label)} ", "bold" if prediction.rank == 1 else "")
        label.append(f"{prediction.score:.4f}", "dim")
        tiles.append((render.picture(picture.draw_map(small, explanation, guess, line=1)), label))
    columns = max(1, min(len(tiles), (console.width + 2) // (width + 2)))
    for first in range(0, len(tiles), columns):
        table = Table.grid(padding=(0, 2, 0, 0))
        shown = tiles[first : first + columns]
        for _ in shown:
            table.add_column(width=width)
        table.add_row(*(image for image, _ in shown))
        table.add_row(*(label for _, label in shown))
        console.print(table)


def print_legend(explaining: Explaining) -> None:
    """What the colours mean, as a remark."""
    render.note("orange speaks for a label, blue against it; the frame is what the network saw")
    if explaining.linearised:
        render.note("note: the classifier has a hidden layer: the maps are linearisations around each photo")


def print_summary(explaining: Explaining, seconds: float) -> None:
    """The model, and how many photos were explained in which time."""
    predictor = explaining.predictor
    times, card, size = predictor.times, predictor.engine.card, predictor.preprocessor.preprocessing.size
    print_legend(explaining)
    if explaining.passed_over:
        render.note(counts.passed_over(explaining.passed_over))
    render.note(
        f"{card.name or predictor.model}: {card.architecture or 'ConvNeXt'}, {size[1]}×{size[0]} · "
        f"{times.photos} photo{'s' * (times.photos != 1)}"
        + (f", {times.failed} failed" if times.failed else "")
        + f" in {seconds:.1f} s"
    )


def print_times(explaining: Explaining, seconds: float) -> None:
    """How photos were preprocessed, the engine, and the time of each stage."""
    predictor = explaining.predictor
    times, engine = predictor.times, predictor.engine
    render.note(
        f"preprocessing: {predictor.preprocessor.preprocessing.describe()}\n"
        f"engine: {engine.name} on {engine.device} in {engine.dtype}, {predictor.threads} threads\n"
        f"times: {seconds:.2f} s in all; read {times.read:.2f} s, decode {times.decode:.2f} s, "
        f"prepare {times.prepare:.2f} s, network {times.engine:.2f} s"
    )
