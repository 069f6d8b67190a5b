"""The worst mistakes as one HTML page: those that the model was surest of come first. It loads and runs nothing.

``mistakes.html`` is the frame, ``mistakes.css`` its style beyond that of all pages.
"""

from __future__ import annotations

import base64
import io
import string
from collections.abc import Callable, Iterable
from pathlib import Path

from convnext_cli.base import html_pages
from convnext_cli.base.errors import PhotoError
from convnext_cli.base.text import JsonObject, html_text
from convnext_cli.photos.decode import DEFAULT_MAX_PIXELS, decode

EDGE, QUALITY = 200, 75  # pixels of the longer edge, of a JPEG
_CARD = """<li>
<div class="picture">$picture</div>
<p class="true"><span>is</span> <bdi>$true</bdi>$rank</p>
<p class="answer"><span>taken for</span> <bdi>$answer</bdi> <b>$score</b></p>
<p class="path"><bdi>$path</bdi></p>
</li>
"""


def page(title: str, facts: str, wrong: Iterable[JsonObject], read: Callable[[str], bytes]) -> Iterable[bytes]:
    """The parts of the page, one photo after the other.

    wrong: of the document, as many as are to be shown. read: the bytes of a photo by its path; may raise PhotoError.
    """
    style = html_pages.style("convnext_cli.evaluation", "mistakes.css")
    allowed = html_pages.allowed(style)
    policy = f"default-src 'none'; img-src data:; style-src {allowed}; base-uri 'none'; form-action 'none'"
    head, tail = html_pages.part("convnext_cli.evaluation", "mistakes.html").split("<!-- mistakes -->")
    values = {"title": html_text(title), "facts": html_text(facts), "policy": policy, "style": style}
    yield string.Template(head).substitute(values).encode()
    for mistake in wrong:
        yield _card(mistake, read).encode()
    yield string.Template(tail).substitute(values).encode()


def write(parts: Iterable[bytes], path: Path) -> None:
    """Raises OSError."""
    with path.open("wb") as stream:
        stream.writelines(parts)


def _card(mistake: JsonObject, read: Callable[[str], bytes]) -> str:
    return string.Template(_CARD).substitute(
        picture=_picture(mistake["path"], read),
        true=html_text(mistake["true"] or "none of the model's labels"),
        rank=_true_score(mistake),
        answer=html_text(mistake["answer"]),
        score=_percent(mistake["score"]),
        path=html_text(mistake["path"]),
    )


def _true_score(mistake: JsonObject) -> str:
    """The score of the true label, or its bound where the label is not among the best guesses."""
    if mistake["true_rank"] is not None:
        return f" <b>{_percent(mistake['true_score'])}</b>"
    most = mistake.get("true_score_at_most")
    return "" if most is None else f" <b>at most {_percent(most)}</b>"


def _percent(score: float) -> str:
    return f"{100 * score:.1f}&nbsp;%"


def _picture(path: str, read: Callable[[str], bytes]) -> str:
    try:
        image = decode(read(path), max_pixels=DEFAULT_MAX_PIXELS, enough=EDGE).image
    except (PhotoError, MemoryError):  # it was there a moment ago
        return "<i>cannot be shown</i>"
    image.thumbnail((EDGE, EDGE))
    image.info.clear()  # comments and places are not for everyone who is shown the page
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" width="{image.width}" height="{image.height}" alt="">'
