"""The report: nothing that a name says is ever markup, and the page does what its keys and filters promise."""

from __future__ import annotations

import base64
import io
import json
import re
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convnext_cli.base.errors import FAILURE_KINDS, OutputError, PhotoError
from convnext_cli.certainty.answer import Answer
from convnext_cli.jobs.entry import Entry
from convnext_cli.jobs.report import Summary, page, small_jpeg, write
from convnext_cli.predict.rows import Prediction, Row, Status
from tests.helpers import browser as browsers
from tests.helpers.photos import encoded, exif_orientation, picture

SUMMARY = Summary({"ok": 3, "failed": 1, "unknown": 0}, "convnext_tiny", "2025-11-25", 41.25)
HOSTILE = [
    "</script><script>document.title='run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "\"'&amp;`${document.title='run'}",
    "<!--<script>",
    "new\nline\ttab\r\x00\x1b[31m",
    "\u202egpj.exe\u2066\u2028",
    "caf\udce9",  # a byte that is not UTF-8
    "naïve 猫 🐈‍⬛ שלום",
    "constructor",
    "",
]


def entry(name: str, *guesses: tuple[str, float], status: Status = "ok", error: PhotoError | None = None) -> Entry:
    predictions = tuple(Prediction(i, i, None, label, score) for i, (label, score) in enumerate(guesses, 1))
    size = (None, None) if error else (640, 480)
    return Entry(f"/photos/{name}", Row(name, status, *size, predictions, "tiny", "0" * 64, error))


def no_picture(file: str) -> bytes:
    raise PhotoError("missing", "not made")


def made(entries: Any, **options: Any) -> str:
    """The text of a page, without pictures unless they are asked for."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "report.html"
        write(entries, target, **{"title": "Holiday", "summary": SUMMARY, "picture": no_picture} | options)
        return target.read_bytes().decode()


class Parsed(HTMLParser):
    """tags: with their attributes, in order. texts: of script and style elements, by what they are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {
            "script": [],
            "style": [],
            "photos": [],
            "all": [],
            "text/plain": [],
            "title": [],
        }
        self._kind = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        of = dict(attributes)
        self.tags.append((tag, of))
        kind = of.get("class") or (of.get("type") if of.get("type") == "text/plain" else of.get("id")) or tag
        self._kind = kind if tag in ("script", "style", "title") else ""
        if self._kind:
            self.texts[self._kind].append("")

    def handle_endtag(self, tag: str) -> None:
        self._kind = ""

    def handle_data(self, data: str) -> None:
        if self._kind:
            self.texts[self._kind][-1] += data

    def photos(self) -> Iterator[tuple[Any, ...]]:
        """What the blocks say, as it went in."""
        for block in map(json.loads, self.texts["photos"]):
            names = block["names"]
            for folder, name, status, width, height, model, guesses, answer, *error in block["photos"]:
                pairs = [(names[i], score) for i, score in zip(guesses[::2], guesses[1::2], strict=True)]
                words = [names[i] for i in error]
                if answer:
                    words += [None if answer[0] < 0 else names[answer[0]], answer[1], names[answer[2]]]
                yield names[folder] + name, names[status], width, height, names[model], pairs, words


@cache
def bare() -> list[tuple[str, dict[str, str | None]]]:
    """The tags of a page without photos."""
    return Parsed(made([])).tags


def expected(of: Entry) -> tuple[Any, ...]:
    row = of.row
    guesses = [(p.label, p.score) for p in row.predictions]
    error: list[object] = [] if row.error is None else [row.error.kind, row.error.message]
    if row.answer is not None:
        error += [row.answer.label, row.answer.score, row.answer.details]
    return of.file, row.status, row.width, row.height, row.model, guesses, error


def anything() -> st.SearchStrategy[str]:
    """Text, bytes that are not UTF-8 among it, often what breaks out of markup."""
    characters = st.characters(exclude_categories=["Cs"]) | st.integers(0xDC80, 0xDCFF).map(chr)
    pieces = st.sampled_from(HOSTILE) | st.text(characters, max_size=12)
    return st.lists(pieces, max_size=4).map("".join)


@st.composite
def any_entry(draw: st.DrawFn) -> Entry:
    score = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32)
    guesses = draw(st.lists(st.tuples(anything(), score), max_size=3))
    error = draw(st.none() | st.builds(PhotoError, st.sampled_from(FAILURE_KINDS), anything()))
    size = st.none() | st.integers(1, 10**5)
    predictions = tuple(Prediction(i, i, None, *guess) for i, guess in enumerate(guesses, 1))
    status = draw(st.sampled_from(get_args(Status)))
    above = st.lists(anything(), max_size=2).map(tuple)
    answers = st.builds(Answer, anything(), st.none(), st.floats(0, 1), st.just("broader"), above=above)
    answer = draw(
        st.none() | answers | st.builds(Answer, st.none(), st.none(), st.just(0.5), st.just("none"), anything())
    )
    row = Row("", status, draw(size), draw(size), predictions, draw(anything()), "", error, answer=answer)
    return Entry("/" + draw(anything()), row)


@settings(max_examples=60)
@given(st.lists(any_entry(), max_size=4))
def test_data_survives_and_never_becomes_markup(entries: list[Entry]) -> None:
    text = made(entries)
    parsed = Parsed(text)
    assert list(parsed.photos()) == [expected(of) for of in entries]
    assert parsed.tags == bare()
    assert text.count("<script") == 3


@settings(max_examples=30)
@given(anything())
def test_titles_are_text(title: str) -> None:
    parsed = Parsed(made([], title=title, summary=Summary({"ok": 1}, title, title)))
    assert parsed.tags == bare()
    assert not set("".join(parsed.texts["title"])) & set("\n\x00\x1b\u200e\u202e\u2066\udce9")


def test_titles_show_what_they_hide() -> None:
    assert Parsed(made([], title="caf\udce9 \u202e <b>")).texts["title"] == ["caf\\xe9 \\u202e <b>"]


def test_policy_lets_only_this_page_run() -> None:
    parsed = Parsed(made([]))
    policy = next(of["content"] for tag, of in parsed.tags if of.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    for name in ("script", "style"):
        digest = base64.b64encode(sha256(parsed.texts[name][0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:; ")
    addresses = [of[name] for _, of in parsed.tags for name in ("src", "href", "action") if name in of]
    assert addresses == ["data:,"]
    # neither markup from text, nor text run as code
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", parsed.texts["script"][0]
    )
    assert not any(name.startswith("on") or name == "style" for _, of in parsed.tags for name in of)


def test_pictures_are_small_upright_and_say_nothing(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encoded(picture(1200, 800), "JPEG", exif=exif_orientation(6), comment=b"at home"))
    data = small_jpeg(str(photo))
    image = Image.open(io.BytesIO(data))
    assert image.size == (107, 160)
    assert b"at home" not in data and not image.getexif()
    photo.write_bytes(encoded(picture(30, 20, "P")))
    assert Image.open(io.BytesIO(small_jpeg(str(photo)))).size == (30, 20)
    with pytest.raises(PhotoError, match="no such file"):
        small_jpeg(str(tmp_path / "nothing.jpg"))


def test_pictures_stay_with_their_photos() -> None:
    """Whatever the order in which threads are done; and one that takes too long stands without."""

    def slowly(file: str) -> bytes:
        number = int(Path(file).name)
        time.sleep(0.02 * (number % 3) if number != 7 else 2)
        if number == 5:
            raise PhotoError("corrupt", "changed since")
        return file.encode()

    entries = [entry(str(i), ("cat", 0.5)) for i in range(12)]
    entries[3] = entry("3", status="failed", error=PhotoError("empty", "the file is empty"))
    entries[4] = entry("4", ("cat", 0.5), status="vanished")
    text = made(entries, picture=slowly, threads=3, timeout=0.5, most_thumbnails=8)
    found = dict(re.findall(r'<script type="text/plain" id="p(\d+)">(.*?)</script>', text))
    # eight are asked for: 0 1 2 5 6 7 8 9
    assert {int(n): base64.b64decode(data).decode() for n, data in found.items()} == {
        n: f"/photos/{n}" for n in (0, 1, 2, 6, 8, 9)
    }
    assert json.loads(Parsed(text).texts["all"][0]) == {"photos": 12, "left_out": 2, "most": 8, "scores": "softmax"}


def test_entries_are_not_gathered() -> None:
    """However many there are, few are on their way."""
    pulled = written = most = 0

    def endless() -> Iterator[Entry]:
        nonlocal pulled, most
        for pulled in range(1, 3001):
            most = max(most, pulled - written)
            yield entry(str(pulled), ("cat", 0.5))

    def progress(number: int) -> None:
        nonlocal written
        written = number

    text = made(endless(), picture=lambda file: b"x", threads=2, progress=progress)
    assert written == 3000 and most < 20
    assert len(Parsed(text).texts["photos"]) == 6 + 1


def test_guesses_are_not_without_number() -> None:
    many = entry("all.jpg", *((f"label {i}", 0.001) for i in range(1000)))
    (photo,) = Parsed(made([many])).photos()
    assert photo[5] == [(f"label {i}", 0.001) for i in range(page.MOST_GUESSES)]


def test_page_is_complete_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")

    def breaks() -> Iterator[Entry]:
        yield entry("a.jpg", ("cat", 0.5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(breaks(), target, title="", summary=SUMMARY, picture=no_picture)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(OutputError, match="cannot be written") as told:
        write([], tmp_path / "no" / "report.html", title="", summary=SUMMARY)
    assert told.value.hint
    write([], target, title="", summary=SUMMARY)
    assert target.read_text().endswith("</html>\n")


def test_summary_in_a_line() -> None:
    assert SUMMARY.facts() == "4 photos: 3 ok, 1 failed · convnext_tiny · 2025-11-25 · 41.2 photos a second"
    assert Summary({}, "tiny", "today").facts() == "0 photos: none · tiny · today"
    assert "1 photo: 1 ok" in Summary({"ok": 1}, "tiny", "today").facts()


# in a browser

SORTED = [
    entry("b/cat.jpg", ("tabby", 0.9), ("tiger cat", 0.05)),
    entry("b/dim.jpg", ("barn", 0.2), status="unknown"),
    entry("a/broken.jpg", status="failed", error=PhotoError("truncated", "the JPEG file ends too early")),
    entry("a/sea 10.jpg", ("seashore", 0.61), ("barn", 0.2)),
    entry("c/gone.jpg", ("tabby", 0.3), status="vanished"),
    entry("a/sea 2.jpg", ("seashore", 0.55)),
    entry("c/dark.jpg", ("tabby", 0.1), status="unknown"),
]
NAMES = "[...document.querySelectorAll('#cards .name')].map(e => e.textContent)"


def count(text: str) -> str:
    return f"document.getElementById('count').textContent === {json.dumps(text)}"


@pytest.fixture(scope="module")
def browser() -> Iterator[browsers.Browser]:
    program = browsers.found()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(browsers.NAMES)} is installed")
    with browsers.running(program) as running:
        yield running


@pytest.fixture
def shown(browser: browsers.Browser, tmp_path: Path) -> Iterator[Any]:
    """Write a page of entries and open it; at the end, nobody has complained and nothing was fetched."""
    opened: list[browsers.Page] = []
    small = io.BytesIO()
    picture(16, 12).save(small, "JPEG")

    def show(entries: Any, *, title: str = "Holiday", scores: Any = "softmax", most: int = 20_000, **size: Any) -> Any:
        target = tmp_path / "report.html"
        summary = Summary({"ok": len(entries)}, "tiny", "today", scores=scores)
        options: dict[str, Any] = {"title": title, "summary": summary, "most_thumbnails": most}
        write(entries, target, picture=lambda file: small.getvalue(), **options)
        opened.append(browser.open(target, **size))
        return opened[-1]

    yield show
    for each in opened:
        each.run("0")  # what has happened so far
        assert each.problems == []
        assert all(address.startswith(("file:", "data:")) for address in each.asked)
        assert sum(address.startswith("file:") for address in each.asked) == 1
        each.close()


def test_what_needs_a_look_comes_first(shown: Any) -> None:
    page = shown(SORTED)
    names = ["broken.jpg", "dark.jpg", "dim.jpg", "sea 2.jpg", "sea 10.jpg", "cat.jpg", "gone.jpg"]
    assert page.run(NAMES) == names
    assert page.run("document.title") == "Holiday"
    assert page.run(count("7 photos"))
    card = "document.querySelectorAll('.card')"
    assert page.run(f"{card}[0].querySelector('.picture').textContent") == "truncatedthe JPEG file ends too early"
    assert page.run(f"{card}[3].querySelector('.score').textContent") == "55\u202f%"
    assert page.run(f"{card}[3].querySelector('.meter > span').style.width") == "55%"
    assert page.run(f"{card}[3].getAttribute('aria-label')") == "sea 2.jpg: seashore, 55\u202f%"
    assert page.run(f"{card}[0].getAttribute('aria-label')").startswith("broken.jpg: failed, truncated: the JPEG")
    page.wait("[...document.images].every(i => i.naturalWidth === 16 && i.alt)")


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("rising", "dark dim gone sea_2 sea_10 cat broken"),
        ("falling", "cat sea_10 sea_2 gone dim dark broken"),
        ("label", "dim sea_2 sea_10 dark gone cat broken"),
        ("path", "broken sea_10 sea_2 cat dim dark gone"),
    ],
)
def test_orders(shown: Any, order: str, names: str) -> None:
    page = shown(SORTED)
    page.run(
        f"{{ const o = document.getElementById('order'); o.value = '{order}'; o.dispatchEvent(new Event('change')) }}"
    )
    assert page.run(NAMES) == [f"{name.replace('_', ' ')}.jpg" for name in names.split()]


CHOICES = "[...document.querySelectorAll('#{} li')].map(e => e.innerText.replace(/\\s+/g, ' '))"


def choose(page: Any, word: str) -> None:
    page.run(f"[...document.querySelectorAll('.choices label')].find(e => e.textContent.startsWith('{word}')).click()")


def test_filters_and_their_counts(shown: Any) -> None:
    page = shown(SORTED)
    assert page.run(CHOICES.format("statuses")) == ["failed 1", "unknown 2", "ok 3", "vanished 1"]
    assert page.run(CHOICES.format("labels")) == ["tabby 3", "seashore 2", "barn 1"]
    choose(page, "tabby")
    assert page.run(NAMES) == ["dark.jpg", "cat.jpg", "gone.jpg"]
    assert page.run(count("3 of 7 photos"))
    assert page.run(CHOICES.format("statuses")) == ["failed 0", "unknown 1", "ok 1", "vanished 1"]
    choose(page, "barn")
    assert page.run(NAMES) == ["dark.jpg", "dim.jpg", "cat.jpg", "gone.jpg"]
    choose(page, "unknown")
    assert page.run(NAMES) == ["dark.jpg", "dim.jpg"]
    assert page.run(CHOICES.format("labels")) == ["tabby 1", "barn 1"]
    page.run("document.getElementById('clear').click()")
    assert page.run(count("7 photos"))
    assert page.run("document.querySelectorAll(':checked').length") == 1  # the order's
    page.run("{ const f = document.getElementById('find'); f.value = 'SEA'; f.dispatchEvent(new Event('input')) }")
    assert page.run(CHOICES.format("labels")) == ["seashore 2"]


def test_search_with_the_keyboard(shown: Any) -> None:
    page = shown(SORTED)
    page.press("/", *"SEA a/")
    page.wait(count("2 of 7 photos"))
    assert page.run(NAMES) == ["sea 2.jpg", "sea 10.jpg"]
    page.press("Enter")
    assert page.run("document.activeElement.dataset.index") == "0"
    page.press("/", *"xyz")
    page.wait("!document.getElementById('none').hidden")
    assert page.run(NAMES) == []
    page.press("Escape", "ArrowDown", "Enter")  # nothing to go to


def test_search_finds_a_letter_however_it_is_written(shown: Any) -> None:
    page = shown([entry("cafe\u0301.jpg", ("barn", 0.5)), entry("cafe.jpg", ("barn", 0.5))])
    page.press("/", *"café")
    page.wait(count("1 of 2 photos"))


def test_keys(shown: Any) -> None:
    page = shown(SORTED, width=1000)
    index = "Number(document.activeElement.dataset.index)"
    columns = page.run("getComputedStyle(document.getElementById('cards')).gridTemplateColumns.split(' ').length")
    assert 1 < columns < 7
    page.press("ArrowRight")
    assert page.run(index) == 0
    page.press("ArrowRight", "ArrowDown")
    assert page.run(index) == 1 + columns
    page.press("ArrowLeft", "ArrowUp")
    assert page.run(index) == 0
    page.press("End")
    assert page.run(index) == 6
    page.press("Home", "Enter")
    assert page.run("document.getElementById('view').open")
    assert page.run("document.getElementById('view-name').textContent") == "broken.jpg"
    assert page.run("document.getElementById('view-error').textContent") == "truncated: the JPEG file ends too early"
    page.press(*["ArrowRight"] * 4)
    said = page.run("document.getElementById('view').innerText")
    for text in (
        "5 of 7",
        "sea 10.jpg",
        "Best 2 guesses",
        "61\u202f%",
        "barn",
        "/photos/a/sea 10.jpg",
        "640 × 480 pixels",
    ):
        assert text in said
    page.press("Escape")
    assert not page.run("document.getElementById('view').open")
    page.wait(f"{index} === 4")
    page.press("?")
    assert page.run("document.getElementById('keys').open")
    page.press("Escape", "ArrowRight")
    assert page.run(index) == 5
    assert page.run("document.querySelectorAll('.card[tabindex=\"0\"]').length") == 1


def test_hostile_names_are_only_text(shown: Any) -> None:
    entries = [entry(f"{name}.jpg", (name, 0.5), ("other", 0.1)) for name in HOSTILE]
    entries += [entry(name, status="failed", error=PhotoError("corrupt", name)) for name in HOSTILE if name]
    page = shown(entries, title=HOSTILE[0])
    assert page.run("document.title") == HOSTILE[0]
    names = page.run(NAMES)
    assert f"{HOSTILE[1]}.jpg" in names
    assert "caf\\xe9.jpg" in names and "caf\\xe9" in names
    assert "\\u202egpj.exe\\u2066\\u2028.jpg" in names
    assert "new\\nline\\ttab\\r\\u0000\\u001b[31m.jpg" in names
    assert f"{HOSTILE[7]}.jpg" in names
    for number in range(len(entries)):
        page.run(f"open({number})")
    assert (
        page.run("document.querySelectorAll('#cards script, #cards [onerror], #view script, #filters img').length") == 0
    )
    assert page.run("document.title") == HOSTILE[0]


def test_policy_stops_what_was_not_written_with_the_page(shown: Any) -> None:
    page = shown(SORTED)
    page.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    )
    page.run("fetch('data:,x').catch(() => 0)")
    assert page.run("document.title") == "Holiday"
    page.run("0")
    assert len(page.problems) >= 2 and all("Content Security Policy" in problem for problem in page.problems)
    page.problems.clear()


def test_only_what_is_in_sight_is_in_the_document(shown: Any) -> None:
    entries = [entry(f"{i:05}.jpg", (f"label {i % 300}", i / 5000)) for i in range(5000)]
    page = shown(entries, width=1600, height=900, most=20)
    assert page.run("document.querySelectorAll('.card').length") < 120
    assert page.run(f"{NAMES}[0]") == "00000.jpg"
    assert page.run("document.getElementById('told').textContent").startswith("4,980 photos beyond the first 20")
    assert page.run("document.querySelectorAll('#labels li').length") == 200
    assert page.run("document.getElementById('more').textContent") == "and 100 more labels"
    page.run("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait(f"{NAMES}.at(-1) === '04999.jpg'")
    assert page.run("document.querySelectorAll('.card').length") < 120
    last = "document.querySelector('#cards li:last-child').getBoundingClientRect()"
    assert page.run(f"{last}.bottom < innerHeight && {last}.top > 0")
    assert page.run("document.querySelectorAll('.card[tabindex=\"0\"]').length") == 1
    page.press("Home")
    page.wait("scrollY < 500 && document.activeElement.dataset.index === '0'")
    page.press("End")
    page.wait("document.activeElement.dataset.index === '4999'")
    assert page.run("(r => r.top >= 0 && r.bottom <= innerHeight)(document.activeElement.getBoundingClientRect())")


def test_more_photos_than_a_browser_has_pixels_for(shown: Any) -> None:
    page = shown([entry(f"{i:04}.jpg", ("barn", i / 3000)) for i in range(3000)], most=0)
    page.run("SHAPE.tallest = 20_000; layOut(); scrollTo(0, 1e9); draw()")
    assert page.run("document.documentElement.scrollHeight") < 21_000
    assert page.run(f"{NAMES}.at(-1)") == "2999.jpg"
    page.press("Home")
    assert page.run(f"{NAMES}[0]") == "0000.jpg"
    page.press(*["ArrowDown"] * 20)
    inside = "(r => r.top >= 0 && r.bottom <= innerHeight)(document.activeElement.getBoundingClientRect())"
    assert page.run("Number(document.activeElement.dataset.index)") == page.run("20 * SHAPE.columns")
    assert page.run(inside)


@pytest.mark.parametrize(("width", "height"), [(375, 667), (1600, 900)])
def test_fits(shown: Any, width: int, height: int) -> None:
    page = shown([*SORTED, entry("long" * 60 + ".jpg", ("word" * 60, 0.4))], width=width, height=height)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.run("open(3)")
    assert page.run("document.getElementById('view').scrollWidth") <= width
    page.run("view.close()")
    assert page.run("document.getElementById('filters').checkVisibility()") == (width > 1000)
    if width < 1000:
        page.run("document.getElementById('sheet').click()")
        choose(page, "failed")
        assert page.run("document.getElementById('sheet').innerText") == "Filter (1)"
        page.press("Escape")
        assert not page.run("document.getElementById('filters').checkVisibility()")


def test_light_and_dark(shown: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = shown(SORTED), shown(SORTED, dark=True)
    colours = light.run(ground), dark.run(ground)
    assert colours[0] != colours[1]
    light.run("document.getElementById('theme').click()")
    assert light.run(ground) == colours[1]
    light.run("document.getElementById('theme').click()")
    assert light.run(ground) == colours[0]


def test_prints_more_than_is_in_sight(shown: Any) -> None:
    page = shown([entry(f"{i}.jpg", ("barn", 0.5)) for i in range(300)])
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelectorAll('.card').length") == 200
    assert page.run("document.getElementById('printed').textContent") == "The first 200 of 300 photos."
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("document.querySelectorAll('.card').length") < 120


def test_logits_have_bars_too(shown: Any) -> None:
    page = shown([entry("a.jpg", ("barn", 12.5), ("tabby", -2.5)), entry("b.jpg", ("barn", 5.0))], scores="logits")
    assert page.run("[...document.querySelectorAll('.score')].map(e => e.textContent)") == ["5.00", "12.50"]
    assert page.run("document.querySelector('.card .meter > span').style.width") == "50%"


def test_without_scripts_it_says_so(shown: Any) -> None:
    page = shown(SORTED)
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.call("Page.reload")
    page.wait("document.readyState === 'complete' && !document.body.dataset.ready")
    text = page.run("document.body.innerText")
    assert "This page needs JavaScript" in text and "7 photos: 7 ok" in text
    assert "Search" not in text and "Reading" not in text
    page.asked.pop()


def test_no_photo_at_all(shown: Any) -> None:
    page = shown([])
    assert page.run(count("0 photos"))
    assert not page.run("document.getElementById('none').hidden")
