"""What a person sees of a training run: a live table on a terminal, a line an evaluation elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from convnext_cli.base.text import counted, duration
from convnext_cli.cli import render
from convnext_cli.cli.label_view import EVERY
from convnext_cli.training.listener import TrainListener

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from convnext_cli.training.records import Evaluation, Results, RunFacts, Step
    from convnext_cli.training.settings import TrainingSettings
    from convnext_cli.training.train import TrainResult

_COLUMNS = ("epoch", "loss", "val loss", "top-1", "top-5", "ECE", "time")
_SHOWN = 12  # evaluations in the live table
_NOTED = (
    *(
        "epochs",
        "minutes",
        "size",
        "sizes",
        "resize",
        "batch_size",
        "optimiser",
        "lr",
        "layer_decay",
        "drop_path",
        "ema",
    ),
    *("mixup", "cutmix", "augment", "scale", "erasing", "class_weights", "seed"),
)


class LiveView(TrainListener):
    """Prints notes and lines; on a terminal, as a context, it draws a table that is kept up to date."""

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._live: Live | None = None
        self._quiet = quiet
        self._share = 0.0
        self._line = ""
        self._clock = clock
        self._stage_name, self._stage_total, self._stage_done = "", 0, 0
        self._stage_begun, self._stage_noted, self._stage_before = 0.0, 0.0, 0
        self._last: Step | None = None
        self._history: list[tuple[Evaluation, float | None]] = []  # with the loss of training
        self._step_noted = clock()

    def __enter__(self) -> Self:
        return self

    def _begin_drawing(self) -> None:
        """Not before the first stage: the program may ask something and draw other bars until then."""
        if self._live is None and not self._quiet and render.err().is_terminal:
            from rich.live import Live

            self._live = Live(console=render.err(), transient=True, get_renderable=self._draw, refresh_per_second=4)
            self._live.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
            self._live = None
            if self._history and kind is None:
                render.err().print(self._table())

    def note(self, text: str) -> None:
        if not self._quiet:
            render.note(f"note: {text}")

    def stage(self, name: str, total: int | None = None) -> None:
        self._begin_drawing()
        self._stage_name, self._stage_total, self._stage_done, self._stage_before = name, total or 0, 0, -1
        if self._live is None and not self._quiet:
            render.note(f"{name}: {counted(self._stage_total, 'photo')}")

    def advance(self, done: int = 1, *, failed: int = 0) -> None:
        now = self._clock()
        self._stage_done += done
        if self._stage_before < 0:  # the first of its photos took an unknown time
            self._stage_begun, self._stage_noted, self._stage_before = now, now, self._stage_done
        done, total = self._stage_done, self._stage_total
        self._line = f"{self._stage_name}: {done:,} of {counted(total, 'photo')}" if done < total else ""
        if self._line and now > self._stage_begun:
            rate = (done - self._stage_before) / (now - self._stage_begun)
            self._line += f", {rate:,.1f}/s, {duration((total - done) / rate)} left" if rate else ""
        if self._live is None and not self._quiet and self._line and now - self._stage_noted >= EVERY:
            self._stage_noted = now
            render.note(self._line)

    def begins(self, settings: TrainingSettings, facts: RunFacts) -> None:
        self._begin_drawing()
        self._step_noted = self._clock()
        if self._quiet:
            return
        counts = ", ".join(f"{count:,} {name}" for name, count in facts["photos"].items() if count)
        render.note(f"{len(facts['classes']):,} classes; photos: {counts}")
        processes = f" in {facts['processes']} processes" if facts["processes"] > 1 else ""
        render.note(
            f"{facts['architecture'] or 'a network'}, beginning with {facts['begun_with']}, on "
            f"{facts['device']}{processes} in {facts['dtype']}"
        )
        if not settings.freeze:
            values = settings.to_dict()
            shown = {name: values[name] for name in _NOTED if values.get(name) not in (None, [], 0, 0.0, "none")}
            render.note("settings: " + ", ".join(f"{name} {value}" for name, value in shown.items()))

    def step(self, done: float, values: Step) -> None:
        self._share, self._last, self._line = done, values, ""
        if self._live is None and not self._quiet and self._clock() - self._step_noted >= EVERY:
            self._step_noted = self._clock()
            left = f", {duration(values['seconds'] * (1 - done) / done)} left" if done > 0.005 else ""
            render.note(
                f"{100 * done:.0f} %, epoch {values['epoch']:.1f}: loss {values['loss']:.3f}, "
                f"{values['images_per_second']:,.0f} photos/s{left}"
            )

    def evaluated(self, done: float, values: Evaluation) -> None:
        self._share = done
        if "val_top1" in values:
            self._history.append((values, self._last["loss"] if self._last else None))
        if self._live is None and not self._quiet:
            render.note(_described(values, self._last))

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = []
        if self._history:
            parts.append(self._table())
        if self._line:
            parts.append(Text(self._line))
        if self._last:
            row = Table.grid(padding=(0, 2))
            spent = self._last["seconds"]
            left = spent * (1 - self._share) / self._share if self._share > 0.005 else None
            row.add_row(
                ProgressBar(total=1, completed=self._share, width=30),
                f"{100 * self._share:.0f} %",
                f"epoch {self._last['epoch']:.1f}",
                f"loss {self._last['loss']:.3f}",
                f"{self._last['images_per_second']:,.0f} photos/s",
                f"{self._last['size']} px",
                f"{duration(left)} left" if left is not None else "",
            )
            parts.append(row)
        return Group(*parts)

    def _table(self) -> RenderableType:
        best = max((evaluation["val_top1"] for evaluation, _ in self._history), default=0)
        rows = [
            (_cells(evaluation, loss), "bold" if evaluation["val_top1"] == best else "")
            for evaluation, loss in self._history[-_SHOWN:]
        ]
        # a column without a figure is left out, such as top-5 of few classes
        titles = [title for title in _COLUMNS if any(title in cells for cells, _ in rows)]
        table = render.table(*titles, right=tuple(range(len(titles))))
        for cells, style in rows:
            table.add_row(*(cells.get(title, "") for title in titles), style=style)
        return table


def _cells(values: Evaluation, loss: float | None) -> dict[str, str]:
    """An evaluation's cells of the table by the titles of their columns, without those of figures that it lacks."""
    first = f"penalty {values['penalty']:g}" if "penalty" in values else f"{values['epoch']:.1f}"
    known: dict[str, tuple[float | None, Callable[[float], str]]] = {
        "loss": (loss, "{:.3f}".format),
        "val loss": (values["val_loss"], "{:.3f}".format),
        "top-1": (values["val_top1"], _percent),
        "top-5": (values.get("val_top5"), _percent),
        "ECE": (values.get("val_ece"), "{:.3f}".format),
        "time": (values.get("seconds"), duration),
    }
    return {"epoch": first} | {title: show(value) for title, (value, show) in known.items() if value is not None}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _described(values: Evaluation, last: Step | None) -> str:
    """An evaluation in a line."""
    if "penalty" in values:
        return (
            f"penalty {values['penalty']:g}: val top-1 {100 * values['val_top1']:.1f} %, loss {values['val_loss']:.3f}"
        )
    rate = f", {last['images_per_second']:,.0f} photos/s" if last else ""
    loss = f"loss {last['loss']:.3f}, " if last else ""
    if "val_top1" not in values:
        return f"epoch {values['epoch']:.1f}: {loss.rstrip(', ')}{rate}, {duration(values['seconds'])}"
    top5 = "" if values["val_top5"] is None else f", top-5 {100 * values['val_top5']:.1f} %"
    return (
        f"epoch {values['epoch']:.1f}: {loss}val loss {values['val_loss']:.3f}, "
        f"top-1 {100 * values['val_top1']:.1f} %{top5}{rate}, {duration(values['seconds'])}"
    )


def print_results(result: TrainResult) -> None:
    """The figures on standard output, and which weights these are."""
    splits = {name: figures for name, figures in (("val", result.val), ("test", result.test)) if figures is not None}
    top5 = any(figures.top5 is not None for figures in splits.values())
    ece = any(figures.calibration_error is not None for figures in splits.values())
    titles = ["", "photos", "top-1", *(["top-5"] if top5 else []), *(["ECE"] if ece else [])]
    table = render.table(*titles, right=tuple(range(1, len(titles))))
    for name, figures in splits.items():
        cells = [name, f"{figures.photos:,}", f"{100 * figures.top1:.2f} %"]
        cells += ["" if figures.top5 is None else f"{100 * figures.top5:.2f} %"] if top5 else []
        error = figures.calibration_error
        cells += ["" if error is None else f"{error:.3f}"] if ece else []
        table.add_row(*cells)
    if splits:
        render.summary().print(table)
    results = result.facts["results"]
    best = f"{'the best' if 'val' in results else 'the last'} weights, of epoch {results['best_epoch']:.1f}"
    if result.facts["asked"].get("freeze"):
        best = f"solved with a penalty of {results['penalty']:g}" if "penalty" in results else "solved"
    render.note(f"{best}, at {results['size']} pixels; {_of_temperature(results)}")


def _of_temperature(results: Results) -> str:
    """Whether logits are divided by a temperature, and why."""
    used, fitted = results["temperature"], results.get("temperature_fitted", results["temperature"])
    if "val" not in results:
        return "no temperature was fitted: there are no photos for val"
    if fitted is None:
        return "no temperature was fitted: val has too few photos to judge one by"
    before, after = results["val_ece_before"], results.get("val_ece_fitted", results["val"]["ece"])
    if used == fitted:
        return f"temperature {used:.3f} brings the ECE on val from {before:.3f} to {after:.3f}"
    return (
        f"the temperature stays 1: {fitted:.3f}, which has the least loss on val, would raise the ECE there from "
        f"{before:.3f} to {after:.3f}"
    )
