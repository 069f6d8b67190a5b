"""The page: written as the entries come, complete or not at all."""

from __future__ import annotations

import base64
import json
import os
import string
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base import html_pages
from convnext_cli.base.files import replacing
from convnext_cli.base.text import html_text
from convnext_cli.certainty.answer import Answer
from convnext_cli.jobs.entry import Entry
from convnext_cli.jobs.report.pictures import PICTURED, MakeMaps, Picture, small_jpeg, with_pictures

if TYPE_CHECKING:
    from convnext_cli.predict.scoring import ScoreKind

MOST_PICTURES = 20_000  # about 80 MB of page
MOST_GUESSES = 20  # a photo
_BLOCK = 500  # photos that the page reads in one go
_PHOTOS = "<!-- photos -->"  # where they come in the frame
_HERE = "convnext_cli.jobs.report"


@dataclass(frozen=True, slots=True)
class Summary:
    """The line above the photos.

    Args:
        counts: photos by status.
        model: its name.
        date: as the page shows it.
        rate: photos a second; None if nothing was measured.
        scores: their kind.
    """

    counts: Mapping[str, int]
    model: str
    date: str
    rate: float | None = None
    scores: ScoreKind = "softmax"

    def facts(self) -> str:
        """One line of it."""
        total = sum(self.counts.values())
        counts = ", ".join(f"{count:,} {status}" for status, count in self.counts.items() if count)
        rate = () if self.rate is None else (f"{self.rate:,.1f} photos a second",)
        return " · ".join((f"{total:,} photo{'s' * (total != 1)}: {counts or 'none'}", self.model, self.date, *rate))


def write(
    entries: Iterable[Entry],
    target: Path,
    *,
    title: str,
    summary: Summary,
    picture: Picture = small_jpeg,
    maps: MakeMaps | None = None,
    threads: int = 1,
    most_thumbnails: int = MOST_PICTURES,
    timeout: float | None = 60.0,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the page of these entries in one go, in little memory; an older page stays until this one is complete.

    picture: makes the small JPEG of a file, or raises PhotoError. maps: makes the maps of an entry (``report.maps``);
    None for a page without them. threads: that make pictures. most_thumbnails: photos
    that get one; the page says how many did not. timeout: seconds for one picture, or None. progress: called with the
    number of photos written. Raises OutputError when the page cannot be written.
    """
    block, number, pictures = _Block(), 0, 0
    head, tail = _frame(title, summary)
    pictured = with_pictures(entries, picture, threads=threads, most=most_thumbnails, timeout=timeout, maps=maps)
    with replacing(target) as stream, closing(pictured):
        stream.write(head)
        for number, (entry, jpeg, drawn) in enumerate(pictured, 1):
            if jpeg is not None:
                # an element of its own, which the page reads only when the photo comes into sight
                stream.write(b'<script type="text/plain" id="p%d">%s</script>\n' % (number - 1, base64.b64encode(jpeg)))
            if drawn is not None:  # which the page reads when the photo is opened
                text = _json(drawn).encode()
                stream.write(b'<script type="application/json" id="m%d">%s</script>\n' % (number - 1, text))
            pictures += entry.row.status in PICTURED
            block.add(entry)
            if len(block.photos) == _BLOCK:
                stream.write(block.html())
                block = _Block()
            progress(number)
        stream.write(block.html())
        left_out = max(0, pictures - most_thumbnails)
        stream.write(tail(photos=number, left_out=left_out, most=most_thumbnails, scores=summary.scores))


@dataclass
class _Block:
    """Some photos as JSON: what is said more than once, by its number in ``names``."""

    names: dict[str, int] = field(default_factory=dict)
    photos: list[list[object]] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        row = entry.row
        name = os.path.basename(entry.file)  # noqa: PTH119 - surrogates
        folder = entry.file[: len(entry.file) - len(name)]
        guesses: list[float] = []
        for guess in row.predictions[:MOST_GUESSES]:
            guesses += (self._number(guess.label), guess.score)
        error = () if row.error is None else (self._number(row.error.kind), self._number(row.error.message))
        known = (self._number(row.status), row.width, row.height, self._number(row.model))
        self.photos.append([self._number(folder), name, *known, guesses, self._answer(row.answer), *error])

    def _answer(self, answer: Answer | None) -> list[float] | int:
        """Its label, or -1 for none, its score, and the words behind the label; 0 where no answer was asked for."""
        if answer is None:
            return 0
        label = -1 if answer.label is None else self._number(answer.label)
        return [label, answer.score, self._number(answer.details)]

    def _number(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))

    def html(self) -> bytes:
        text = _json({"names": list(self.names), "photos": self.photos})
        return f'<script type="application/json" class="photos">{text}</script>\n'.encode()


def _json(values: object) -> str:
    """JSON that is safe inside a script element, where only < can begin markup; all ASCII, lone surrogates too."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _frame(title: str, summary: Summary) -> tuple[bytes, Callable[..., bytes]]:
    """The page before the photos, and a function that makes the rest."""
    style = html_pages.style(_HERE, "page.css")
    script = "".join(html_pages.part(_HERE, name) for name in ("data.js", "maps.js", "page.js", "keys.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {html_pages.allowed(style)}; "
        f"script-src {html_pages.allowed(script)}; base-uri 'none'; form-action 'none'"
    )
    head, tail = map(string.Template, html_pages.part(_HERE, "page.html").split(_PHOTOS))
    values = {"title": html_text(title), "facts": html_text(summary.facts()), "policy": policy, "style": style}
    return head.substitute(values).encode(), lambda **all_: tail.substitute(script=script, all=_json(all_)).encode()
