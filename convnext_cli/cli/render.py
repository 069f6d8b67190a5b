"""All that a person sees: consoles, tables, bars, thumbnails, errors. rich is imported when there is something to draw.

Colour and bars only on a terminal; NO_COLOR, FORCE_COLOR, COLUMNS and TERM=dumb are obeyed (by rich).
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, TYPE_CHECKING, cast

from convnext_cli.base.listener import Listener
from convnext_cli.base.text import escaped
from convnext_cli.cli.closed_streams import output_is_closed
from convnext_cli.storage.addresses import scrub

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

    from convnext_cli.certainty.answer import Answer, PredictionSet
    from convnext_cli.predict.rows import Row

LABEL_WIDTH, BAR_WIDTH, THUMBNAIL_WIDTH = 30, 24, 32
SET_LABELS = 8  # of a set of labels, on the screen
FRAME_WIDTH = 18  # rank, score and the lines between
# Direction overrides can make one name look like another on a screen.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """User text without anything that moves the cursor: control, surrogate and direction characters are escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(escaped(c) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _BIDI else c for c in text)


def clean(text: str) -> str:
    """``plain``, and safe inside rich markup."""
    from rich.markup import escape

    return escape(plain(text))


def _console(stderr: bool, quiet: bool = False) -> Console:
    """A console on which no text moves the cursor, wherever it comes from: the one owner of that rule."""
    from rich.console import Console
    from rich.segment import Segment

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """A closed pipe ends the command silently (cli.main), and not with rich's own exit status."""
            raise BrokenPipeError

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                # rich's own control codes stand in segments of their own
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(plain_lines(segment.text), segment.style)

    stream = sys.stderr if stderr else sys.stdout
    # Off a terminal nothing is cut: a path that lost its end is of no use to the next program.
    environment = _with_sizes_of_screens(os.environ)
    width = None if "COLUMNS" in environment or stream.isatty() else 1000
    return Quiet(
        stderr=stderr,
        quiet=quiet,
        highlight=False,
        soft_wrap=False,
        width=width,
        emoji=False,
        _environ=environment,
    )


def _with_sizes_of_screens(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without COLUMNS and LINES that no screen has: with COLUMNS=0 rich prints nothing at all."""
    return {
        name: value
        for name, value in environment.items()
        if name not in ("COLUMNS", "LINES") or re.fullmatch(r"0*[1-9][0-9]{0,3}", value)
    }


@cache
def out() -> Console:
    """The console of standard output."""
    return _console(stderr=False)


@cache
def summary() -> Console:
    """The console for figures about files that were written: standard output, unless the caller closed that."""
    return _console(stderr=False, quiet=output_is_closed())


_quiet = False


@cache
def err() -> Console:
    """The console of standard error; silent under ``-q``."""
    return _console(stderr=True, quiet=_quiet)


def set_quiet(quiet: bool) -> None:
    """Silence all remarks on standard error; errors are still shown."""
    global _quiet
    _quiet = quiet
    err.cache_clear()


def reset() -> None:
    """Forget the consoles, because the streams were replaced."""
    out.cache_clear()
    summary.cache_clear()
    err.cache_clear()


class _Screen:
    """A terminal for rows as text: what file names would do to it is escaped, line ends and tabs apart."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        parts = re.split(r"([\n\t])", data.decode("utf-8", "surrogateescape"))
        self._stream.write("".join(part if part in "\n\t" else plain(part) for part in parts).encode())
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


def screen(stream: IO[bytes]) -> IO[bytes]:
    """The stream, for rows on a terminal."""
    return cast("IO[bytes]", _Screen(stream))


def echo(text: str) -> None:
    """One line on standard output: as it is for a program, escaped on a terminal."""
    import click

    click.echo(plain(text) if sys.stdout.isatty() else text)


def error(message: str, hint: str | None = None) -> None:
    """``error:`` and ``hint:`` on standard error, whatever the verbosity, without secrets."""
    message, hint = scrub(message), hint and scrub(hint)
    if not sys.stderr.isatty() and "FORCE_COLOR" not in os.environ:  # no need to load rich
        print(f"error: {plain_lines(message)}", file=sys.stderr)
        if hint:
            print(f"hint: {plain_lines(hint)}", file=sys.stderr)
        return
    console = _console(stderr=True)
    console.print(f"[bold red]error:[/] {clean_lines(message)}", soft_wrap=True)
    if hint:
        console.print(f"[cyan]hint:[/] {clean_lines(hint)}", soft_wrap=True)


def traceback() -> None:
    """The traceback of the current exception, on standard error, without secrets."""
    from traceback import format_exc

    with suppress(OSError):
        print(plain_lines(scrub(format_exc())), file=sys.stderr, end="")


def plain_lines(text: str) -> str:
    """``plain`` for our own messages of several lines."""
    return "\n".join(plain(line) for line in text.split("\n"))


def clean_lines(text: str) -> str:
    """``clean`` for our own messages of several lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


def note(text: str) -> None:
    """One remark on standard error, unless ``-q``, without secrets."""
    if _quiet:
        return
    with suppress(OSError):  # rows are what counts: a standard error that is full or gone stops nothing
        _note(scrub(text))


class Notes(Listener):
    """Prints the notes of a verb, unless ``-q``."""

    def note(self, text: str) -> None:
        note(f"note: {text}")


class StageLines(Notes):
    """Prints the stages of a verb too, a line each."""

    def stage(self, name: str, total: int | None = None) -> None:
        note(name)


def remark(text: str) -> None:
    """One remark on standard error, with ``-q`` too."""
    with suppress(OSError):
        _note(scrub(text))


def _note(text: str) -> None:
    if sys.stderr.isatty() or "FORCE_COLOR" in os.environ:
        console = _console(stderr=True) if _quiet else err()  # err() is silent under -q, and keeps bars below remarks
        console.print(f"[dim]{clean_lines(text)}[/]", soft_wrap=True)
    else:
        print(plain_lines(text), file=sys.stderr)


@contextmanager
def c_libraries_silenced() -> Iterator[None]:
    """Keep what C libraries (libtiff, libpng, libheif) print to file descriptor 2 off the screen.

    Our own remarks go on: ``sys.stderr`` moves to a copy of the descriptor.
    """
    try:
        copy, ours = os.dup(2), sys.stderr
    except OSError:  # started without a standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    moved = False
    with suppress(OSError, AttributeError, ValueError):
        moved = ours.fileno() == 2
    if moved:
        ours.flush()
        sys.stderr = os.fdopen(copy, "w", encoding=ours.encoding, errors="backslashreplace", buffering=1, closefd=False)
        reset()
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        if moved:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            sys.stderr = ours
            reset()
        os.dup2(copy, 2)
        os.close(copy)


def table(*titles: str, right: tuple[int, ...] = ()) -> Table:
    """An empty table without lines. right: the places of columns of figures."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, title in enumerate(titles):
        grid.add_column(title, justify="right" if place in right else "left", no_wrap=place in right)
    return grid


def print_row(row: Row, *, bars: bool) -> None:
    """The answer for one photo on standard output: its name, then its labels, or what is wrong with it."""
    print_row_title(row)
    console = out()
    if row.answer is not None:
        console.print(_answer_line(row.answer), soft_wrap=True)
    if row.prediction_set is not None:
        console.print(_set_line(row.prediction_set), soft_wrap=True)
    if row.error is None:
        console.print(prediction_table(row, bars=bars, width=console.width))


def print_row_title(row: Row) -> None:
    """The name and size of a photo, or what is wrong with it, on standard output."""
    from rich.text import Text

    title = Text(plain(row.path), "bold")
    if row.width is not None:
        title.append(f"  {row.width}×{row.height}", "not bold dim")
    if row.error is not None:
        title = Text.assemble(title, "  ", (f"{row.error.kind}: {plain(row.error.message)}", "red"))
    out().print(title, soft_wrap=True)  # a path is never cut


def _set_line(prediction_set: PredictionSet) -> Text:
    """Such as "95 % set: obelisk, beacon"; of a large set its first labels."""
    from rich.text import Text

    labels = [plain(label) for label in prediction_set.labels]
    more = f" and {len(labels) - SET_LABELS} more" if len(labels) > SET_LABELS else ""
    return Text(f"{prediction_set.coverage:.0%} set: {', '.join(labels[:SET_LABELS])}{more}".replace("%", " %"), "dim")


def _answer_line(answer: Answer) -> Text:
    """Such as "cat (animal › carnivore › feline), 96 % sure"."""
    from rich.text import Text

    label = ("unknown", "yellow") if answer.label is None else (plain(answer.label), "bold green")
    return Text.assemble(label, plain(answer.details))


def prediction_table(row: Row, *, bars: bool, width: int) -> RenderableType:
    """Rank, label, score as a bar and a number; beside it the thumbnail, if there is one.

    width: columns of the screen; the bar goes first, then the thumbnail, then labels are folded, never the score.
    """
    from rich import box
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    thumbnail = row.thumbnail if width >= THUMBNAIL_WIDTH + 2 + FRAME_WIDTH + 12 else None
    room = width - FRAME_WIDTH - (THUMBNAIL_WIDTH + 2 if thumbnail is not None else 0)
    label_width = max(1, min(LABEL_WIDTH, room))
    bar_width = min(BAR_WIDTH, room - label_width - 3)
    bars = bars and bar_width >= 6
    table = Table(box=box.ROUNDED, show_header=False)
    table.add_column(justify="right", style="dim")
    table.add_column(min_width=label_width, overflow="fold")
    if bars:
        table.add_column(width=bar_width)
    table.add_column(justify="right", min_width=6, no_wrap=True)
    predictions = row.predictions
    if row.status == "unknown" and row.answer is None:  # the line of an answer says so, and why
        table.add_row("", Text("unknown", "yellow"), *([""] if bars else []), "")
        predictions = predictions[:1]
    for p in predictions:
        unsure = row.status == "unknown"
        style = "dim" if unsure else "bold" if p.rank == 1 else ""
        colour = "bright_black" if unsure else "green" if p.rank == 1 else "cyan"
        cells: list[RenderableType] = [str(p.rank), Text(plain(p.label), style)]
        if bars:
            cells.append(Bar(1.0, 0.0, min(max(p.score, 0.0), 1.0), width=bar_width, color=colour))
        table.add_row(*cells, Text(f"{p.score:.4f}", style))
    if thumbnail is None:
        return table
    beside = Table.grid(padding=(0, 2))
    beside.add_row(picture(thumbnail), table)
    return beside


def picture(image: Image) -> RenderableType:
    """A small photo in half blocks: each character shows two pixels, one above the other."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    width, height = picture_size(image)
    pixels = image.resize((width, height)).tobytes()
    text = Text()
    for y in range(0, height, 2):
        for x in range(width):
            upper, lower = (3 * (row * width + x) for row in (y, y + 1))
            style = Style(
                color=Color.from_rgb(*pixels[upper : upper + 3]), bgcolor=Color.from_rgb(*pixels[lower : lower + 3])
            )
            text.append("▀", style)
        text.append("\n")
    text.right_crop(1)
    return text


def picture_size(image: Image) -> tuple[int, int]:
    """(width, height) in pixels at which ``picture`` draws a photo."""
    width = THUMBNAIL_WIDTH
    return width, max(2, min(round(image.height / image.width * width), width) // 2 * 2)
