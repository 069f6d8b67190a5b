"""What a person sees of a training run: a live table on a terminal, a line an evaluation elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from convnext_cli.cli import render

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from convnext_cli.training.recipe import TrainingRecipe

_SHOWN = 12  # evaluations in the live table
_NOTED = (
    *("epochs", "minutes", "size", "sizes", "batch_size", "optimiser", "lr", "layer_decay", "drop_path", "ema"),
    *("mixup", "cutmix", "augment", "scale", "erasing", "class_weights", "seed"),
)


class Teller:
    """Told by the run what is done; as a context it holds the live table."""

    def __init__(self, *, quiet: bool) -> None:
        self._live: Live | None = None
        self._quiet = quiet
        self._done = 0.0
        self._line = ""
        self._last: dict[str, Any] = {}
        self._history: list[dict[str, Any]] = []
        self._minutes: float | None = None

    def __enter__(self) -> Teller:
        if not self._quiet and render.err().is_terminal:
            from rich.live import Live

            self._live = Live(console=render.err(), transient=True, get_renderable=self._draw, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
            self._live = None
            if self._history and kind is None:
                render.err().print(self._table())

    def say(self, text: str) -> None:
        if not self._quiet:
            render.note(f"note: {text}")

    def reading(self, what: str, done: int, total: int) -> None:
        self._line = f"reading {what}: {done:,} of {total:,}" if done < total else ""

    def begins(self, recipe: TrainingRecipe, facts: dict[str, Any]) -> None:
        self._minutes = recipe.minutes
        if self._quiet:
            return
        counts = ", ".join(f"{count:,} {name}" for name, count in facts["photos"].items() if count)
        render.note(f"{len(facts['classes']):,} classes; photos: {counts}")
        processes = f" in {facts['processes']} processes" if facts["processes"] > 1 else ""
        render.note(
            f"{facts['architecture'] or 'a network'}, beginning with {facts['begun_with']}, on "
            f"{facts['device']}{processes} in {facts['dtype']}"
        )
        if not recipe.freeze:
            told = recipe.to_dict()
            told = {name: told[name] for name in _NOTED if told.get(name) not in (None, [], 0, 0.0, "none")}
            render.note("settings: " + ", ".join(f"{name} {value}" for name, value in told.items()))

    def step(self, done: float, values: dict[str, Any]) -> None:
        self._done, self._last = done, values

    def judged(self, done: float, values: dict[str, Any]) -> None:
        self._done = done
        self._history.append(values | {"loss": self._last.get("loss")})
        if self._live is None and not self._quiet:
            render.note(_told(values, self._last))

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
            left = spent * (1 - self._done) / self._done if self._done > 0.005 else None
            row.add_row(
                ProgressBar(total=1, completed=self._done, width=30),
                f"{100 * self._done:.0f} %",
                f"epoch {self._last['epoch']:.1f}",
                f"loss {self._last['loss']:.3f}",
                f"{self._last['images_per_second']:,.0f} photos/s",
                f"{self._last['size']} px",
                f"{duration(left)} left" if left is not None else "",
            )
            parts.append(row)
        return Group(*parts)

    def _table(self) -> RenderableType:
        table = render.table("epoch", "loss", "val loss", "top-1", "top-5", "ECE", "time", right=(0, 1, 2, 3, 4, 5, 6))
        best = max((each["val_top1"] for each in self._history), default=0)
        for each in self._history[-_SHOWN:]:
            mark = "bold" if each["val_top1"] == best else ""
            table.add_row(
                f"{each['epoch']:.1f}" if "penalty" not in each else f"penalty {each['penalty']:g}",
                "" if each.get("loss") is None else f"{each['loss']:.3f}",
                f"{each['val_loss']:.3f}",
                f"{100 * each['val_top1']:.1f} %",
                f"{100 * each['val_top5']:.1f} %" if "val_top5" in each else "",
                f"{each['val_ece']:.3f}" if "val_ece" in each else "",
                duration(each["seconds"]) if "seconds" in each else "",
                style=mark,
            )
        return table


def _told(values: dict[str, Any], last: dict[str, Any]) -> str:
    """An evaluation in a line."""
    if "penalty" in values:
        return (
            f"penalty {values['penalty']:g}: val top-1 {100 * values['val_top1']:.1f} %, loss {values['val_loss']:.3f}"
        )
    rate = f", {last['images_per_second']:,.0f} photos/s" if last else ""
    loss = f"loss {last['loss']:.3f}, " if last else ""
    return (
        f"epoch {values['epoch']:.1f}: {loss}val loss {values['val_loss']:.3f}, "
        f"top-1 {100 * values['val_top1']:.1f} %, top-5 {100 * values['val_top5']:.1f} %{rate}, "
        f"{duration(values['seconds'])}"
    )


def print_results(facts: dict[str, Any]) -> None:
    """What came of it, on standard output."""
    results = facts["results"]
    table = render.table("", "photos", "top-1", "top-5", "ECE", right=(1, 2, 3, 4))
    for name in ("val", "test"):
        if name in results:
            found = results[name]
            table.add_row(
                name,
                f"{facts['photos'][name]:,}",
                f"{100 * found['top1']:.2f} %",
                f"{100 * found['top5']:.2f} %" if len(facts["classes"]) > 5 else "",
                f"{found['ece']:.3f}",
            )
    render.out().print(table)
    best = "solved" if facts["asked"].get("freeze") else f"the best of epoch {results['best_epoch']:.1f}"
    render.note(
        f"{best}, at {results['size']} pixels; temperature "
        f"{results['temperature']:.3f} brings the ECE on val from {results['val_ece_before']:.3f} to "
        f"{results['val']['ece']:.3f}"
    )


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min, 1 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
